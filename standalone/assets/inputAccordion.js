// Accordions with a checkbox in their label; being open is the value of a hidden checkbox.
"use strict";

function inputAccordionChecked(id, checked) {
    const accordion = gradioApp().getElementById(id);
    if (!accordion) return;
    const visible = accordion.visibleCheckbox;
    if (visible) visible.checked = checked;
    const label = accordion.querySelector(".label-wrap");
    if (label && label.classList.contains("open") !== checked) label.click();
}

function setupAccordion(accordion) {
    const label = accordion.querySelector(".label-wrap");
    const hidden = gradioApp().querySelector("#" + accordion.id + "-checkbox input");
    const extra = gradioApp().getElementById(accordion.id + "-extra");
    if (!label || !hidden || accordion.visibleCheckbox) return;

    const visible = document.createElement("input");
    visible.type = "checkbox";
    visible.id = accordion.id + "-visible-checkbox";
    visible.checked = label.classList.contains("open");
    accordion.visibleCheckbox = visible;
    label.insertBefore(visible, label.firstChild);

    const follow = () => {
        const open = label.classList.contains("open");
        visible.checked = open;
        if (hidden.checked !== open) {
            hidden.checked = open;
            hidden.dispatchEvent(new Event("change", {bubbles: true}));
            updateInput(hidden);
        }
    };
    visible.addEventListener("click", (event) => event.stopPropagation());
    visible.addEventListener("change", () => {
        if (label.classList.contains("open") !== visible.checked) label.click();
    });
    new MutationObserver(follow).observe(label, {attributes: true, attributeFilter: ["class"]});
    if (extra) {
        label.insertBefore(extra, label.lastElementChild);
        extra.addEventListener("click", (event) => event.stopPropagation());
    }
}

onUiLoaded(() => gradioApp().querySelectorAll(".input-accordion").forEach(setupAccordion));
