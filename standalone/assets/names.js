// Names for widgets that gradio leaves without one, for those who hear the page instead of seeing it.
"use strict";

function nameWidgets() {
    const app = gradioApp();
    for (const number of app.querySelectorAll('input[type="number"]:not([aria-label])')) {
        const name = number.closest(".block")?.querySelector("label span, span[data-testid='block-info']")?.textContent.trim();
        if (name) number.setAttribute("aria-label", name);
    }
    for (const box of app.querySelectorAll(".input-accordion > .label-wrap input:not([aria-label])")) {
        box.setAttribute("aria-label", box.closest(".label-wrap").textContent.trim());
    }
    for (const items of app.querySelectorAll(".thumbnails, .grid-container")) {
        Array.from(items.querySelectorAll(".thumbnail-item")).forEach((button, index) => {
            button.setAttribute("aria-label", `Picture ${index + 1}`);
        });
    }
    for (const image of app.querySelectorAll("img:not([alt])")) image.alt = "";
}

onUiLoaded(nameWidgets);
onAfterUiUpdate(nameWidgets);
