// A picture of the results, or of PNG Info, on its way to another place; and the keys that start and stop a job.
"use strict";

const PICTURE_PLACES = {
    img2img: {tab: "img2img", mode: 0, component: "img2img_image"},
    inpaint: {tab: "img2img", mode: 1, component: "img2maskimg"},
    txt2img: {tab: "txt2img"},
};

function resultPicture(name) {
    const app = gradioApp();
    if (name === "pnginfo") return app.querySelector("#pnginfo_image img");
    const gallery = app.getElementById(name + "_gallery");
    return gallery?.querySelector(".preview > .image-button img, .preview img[data-testid='detailed-image'], .preview > img")
        ?? gallery?.querySelector(".thumbnail-item.selected img, .grid-wrap img, img") ?? null;
}

const loadedPicture = (image) => fetch(image.src).then((answer) => answer.blob());

function putPicture(component, blob) {
    const fileInput = () => component.querySelector('input[type="file"]');
    const put = () => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([blob], "picture.png", {type: blob.type || "image/png"}));
        fileInput().files = transfer.files;
        fileInput().dispatchEvent(new Event("change", {bubbles: true}));
    };
    if (fileInput()) return put();
    // a component that holds a picture has no file input until it is emptied
    const observer = new MutationObserver(() => {
        if (!fileInput()) return;
        observer.disconnect();
        put();
    });
    observer.observe(component, {childList: true, subtree: true});
    component.querySelector('button[aria-label="Clear"], button[aria-label="Remove Image"], button[title="Clear"]')?.click();
}

// Puts the picture that `name` shows into its new place and goes there; the number of the picture, for its parameters.
function sendPicture(name, target) {
    const place = PICTURE_PLACES[target];
    const image = resultPicture(name);
    const number = name === "pnginfo" ? -1 : Array.from(gradioApp().querySelectorAll(`#${name}_gallery .thumbnails > .thumbnail-item`))
        .findIndex((x) => x.classList.contains("selected"));
    switch_to_tab(place.tab);
    if (place.component) {
        const modes = gradioApp().querySelectorAll("#mode_img2img > .tab-nav > button, #mode_img2img > .tab-container [role=tab]");
        modes[place.mode]?.click();
        if (image) loadedPicture(image).then((blob) => putPicture(gradioApp().getElementById(place.component), blob)).catch(console.error);
    }
    return String(Math.max(0, number));
}

async function savePicture(name) {
    const image = resultPicture(name);
    if (!image) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await loadedPicture(image));
    link.download = `${name}-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Ctrl+Enter (or Alt, or Cmd) makes the picture of the tab in sight, Escape stops it.
document.addEventListener("keydown", (event) => {
    const tab = get_uiCurrentTabContent()?.id.replace("tab_", "");
    const press = (what) => {
        const button = gradioApp().getElementById(`${tab}_${what}`);
        if (!button) return;
        event.preventDefault();
        event.stopPropagation();
        button.click();
    };
    if (event.key === "Enter" && (event.ctrlKey || event.altKey || event.metaKey)) press("generate");
    if (event.key === "Escape" && document.body.classList.contains("generating") && !document.querySelector("dialog[open]")) press("interrupt");
}, true);
