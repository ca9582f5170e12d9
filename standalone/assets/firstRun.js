// The tour of the model that comes with the repository; the first time, drawing and prompt are there without a click.
"use strict";

const FIRST_RUN = "first-run-closed";
const FIRST_UNIT = "#txt2img_controlnet_ControlNet-0_";

const found = async (selector, ready = () => true) => {
    for (let attempt = 0; attempt < 100; attempt++) {
        const element = gradioApp().querySelector(selector);
        if (element && ready(element)) return element;
        await new Promise((done) => setTimeout(done, 100));
    }
    throw new Error(`The page has no ${selector}.`);
};

function fillField(field, value) {
    field.value = value;
    updateInput(field);
    field.dispatchEvent(new Event("change", {bubbles: true}));
}

// Prompt, strength of the prompt, the drawing as the first unit's picture, and what finds its outline.
async function loadFirstPicture(section) {
    fillField(await found("#txt2img_prompt textarea"), section.dataset.prompt);
    fillField(await found("#txt2img_cfg_scale input[type=number]"), "4");
    const head = await found("#txt2img_controlnet #controlnet > .label-wrap");
    if (!head.classList.contains("open")) head.click();
    const answer = await fetch("./internal/first-run/drawing");
    if (!answer.ok) throw new Error(`The drawing cannot be fetched: ${answer.status}.`);
    const unit = await found(FIRST_UNIT + "input_image");
    putPicture(unit, await answer.blob());
    await found(FIRST_UNIT + "controlnet_enable_checkbox input", (box) => box.checked);
    const perfect = await found(FIRST_UNIT + "controlnet_pixel_perfect_checkbox input");
    if (!perfect.checked) perfect.click();
    const types = await found(FIRST_UNIT + "controlnet_type_filter_radio");
    Array.from(types.querySelectorAll("label")).find((label) => label.textContent.trim() === "Canny")?.click();
}

function showFirstRun() {
    const section = gradioApp().querySelector(".first-run");
    if (!section || !optionsReady) return;
    // a title gets its hash behind it once that is known
    const name = (title) => (title ?? "").replace(/ \[[0-9a-f]+\]$/, "");
    const chosen = name(opts.sd_model_checkpoint) === name(section.dataset.checkpoint);
    const closed = localGet(FIRST_RUN, "") !== "";
    section.hidden = !chosen || closed;
    if (section.hidden || section.dataset.begun) return;
    section.dataset.begun = "yes";
    if (!gradioApp().querySelector("#txt2img_prompt textarea").value) loadFirstPicture(section).catch(console.error);
}

document.addEventListener("click", (event) => {
    const action = event.target.closest?.("[data-first-run]")?.dataset.firstRun;
    if (!action) return;
    const section = gradioApp().querySelector(".first-run");
    if (action === "load") loadFirstPicture(section).catch(console.error);
    if (action === "close") {
        localSet(FIRST_RUN, "yes");
        section.hidden = true;
    }
});

onOptionsChanged(showFirstRun);
onAfterUiUpdate(showFirstRun); // the options may be there before the tour is
