// A modal window with a bar of tools; Escape closes it, the focus goes back to where it was.

export class Dialog {
    constructor(title) {
        this.element = document.createElement("dialog");
        this.element.className = "cnet-dialog";
        this.element.setAttribute("aria-label", title);
        this.element.append(Object.assign(document.createElement("h2"), {textContent: title}));
        this.bar = document.createElement("div");
        this.bar.className = "cnet-dialog-bar";
        this.element.append(this.bar);
        this.result = new Promise((done) => {
            this.finish = done;
        });
        this.element.addEventListener("close", () => {
            this.finish(null); // a no-op where a result was given
            this.element.remove();
        });
    }

    open() {
        const app = gradioApp();
        (app === document ? document.body.querySelector(".gradio-container") ?? document.body : app).append(this.element);
        this.element.showModal();
    }

    close(value = null) {
        this.finish(value);
        this.element.close();
    }

    button(text, action, {main = false, key = ""} = {}) {
        const button = Object.assign(document.createElement("button"), {type: "button", textContent: text});
        if (main) button.classList.add("cnet-main");
        if (key) button.title = key;
        button.addEventListener("click", () => action(button));
        this.bar.append(button);
        return button;
    }

    slider(text, low, high, value, changed) {
        const label = Object.assign(document.createElement("label"), {textContent: `${text} `});
        const input = Object.assign(document.createElement("input"), {type: "range", min: low, max: high, value});
        input.addEventListener("input", () => changed(Number(input.value)));
        label.append(input);
        this.bar.append(label);
        return input;
    }
}

export function fail(error) {
    console.warn(error);
    const dialog = new Dialog("ControlNet");
    dialog.element.append(Object.assign(document.createElement("p"), {textContent: error.message ?? String(error)}));
    dialog.button("Close", () => dialog.close());
    dialog.open();
}

export function loadPicture(address) {
    return new Promise((done, failed) => {
        const image = new Image();
        image.addEventListener("load", () => done(image));
        image.addEventListener("error", () => failed(new Error("The picture cannot be shown.")));
        image.src = address;
    });
}
