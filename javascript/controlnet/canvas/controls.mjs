// Plain controls with names, as the canvas and its bar use them.

export function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
}

export function button(text, title, action) {
    const made = make("button", {type: "button", textContent: text, title});
    made.addEventListener("click", () => action(made));
    return made;
}

// One of several: buttons of which one is pressed. choices: [value, text, title].
export function choice(label, choices, chosen) {
    const group = make("div", {className: "cnet-choice"});
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", label);
    const buttons = new Map(choices.map(([value, text, title]) => [value, button(text, title, () => chosen(value))]));
    group.append(...buttons.values());
    return {element: group, set: (value) => buttons.forEach((one, name) => one.setAttribute("aria-pressed", String(name === value)))};
}

export function slider(text, low, high, changed) {
    const input = make("input", {type: "range", min: low, max: high, step: 1});
    const shown = make("output");
    input.addEventListener("input", () => changed(Number(input.value)));
    const set = (value) => {
        input.value = value;
        shown.textContent = value;
    };
    return {element: make("label", {className: "cnet-range"}, `${text} `, input, shown), set};
}

export function numberField(text, value) {
    const input = make("input", {type: "text", inputMode: "numeric", value, size: 5});
    return {element: make("label", {}, `${text} `, input), input, get value() { return Number(input.value); }};
}

// A part that is folded away until its button is clicked; Escape folds it.
export function folded(text, title, content) {
    const part = make("div", {className: "cnet-fold", hidden: true}, content);
    const opener = button(text, title, () => set(part.hidden));
    const set = (open) => {
        part.hidden = !open;
        opener.setAttribute("aria-expanded", String(open));
    };
    set(false);
    part.addEventListener("keydown", (event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        event.preventDefault();
        set(false);
        opener.focus();
    });
    return {opener, part, set};
}
