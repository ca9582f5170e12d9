// Gradio 3 makes the heads of accordions from what no key reaches.

export function reachAccordions(root) {
    for (const head of root.querySelectorAll("div.label-wrap:not([tabindex])")) {
        head.tabIndex = 0;
        head.setAttribute("role", "button");
        head.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault();
            head.click();
        });
    }
    for (const head of root.querySelectorAll(".label-wrap")) {
        const open = String(head.classList.contains("open"));
        if (head.getAttribute("aria-expanded") !== open) head.setAttribute("aria-expanded", open);
    }
}
