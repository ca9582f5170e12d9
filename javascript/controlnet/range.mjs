// Start and end of a unit as one slider with two thumbs, over the two exact numbers.

const START = "controlnet_start_control_step_slider";
const END = "controlnet_ending_control_step_slider";

// Gives one of gradio's sliders a value, as if it had been dragged there.
export function setSlider(part, value, released = true) {
    const number = part?.querySelector("input[type=number]");
    if (!number) return;
    if (Number(number.value) !== value) {
        number.value = String(value);
        updateInput(number);
    }
    if (released) part.querySelector("input[type=range]")?.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
}

export const sliderValue = (part) => Number(part?.querySelector("input[type=number]")?.value ?? NaN);

function thumb(name, set, release) {
    const input = Object.assign(document.createElement("input"), {type: "range", min: 0, max: 1, step: 0.01});
    input.setAttribute("aria-label", name);
    input.addEventListener("input", (event) => {
        event.stopPropagation();
        set(Number(input.value));
    });
    input.addEventListener("change", (event) => {
        event.stopPropagation();
        release();
    });
    return input;
}

export class RangeSlider {
    constructor(unit) {
        this.parts = [unit.part(START), unit.part(END)];
        const row = this.parts[0]?.closest(".controlnet_weight_steps");
        if (!row || !this.parts[1]) return;
        const set = (which) => (value) => this.set(which, value);
        const release = () => this.parts.forEach((part) => setSlider(part, sliderValue(part)));
        this.thumbs = [thumb("Starting control step, on the range", set(0), release), thumb("Ending control step, on the range", set(1), release)];
        this.track = Object.assign(document.createElement("div"), {className: "cnet-steps"});
        this.track.title = "In which part of the steps the unit acts";
        this.track.append(...this.thumbs);
        row.before(this.track);
        row.classList.add("cnet-exact-steps");
        this.show();
    }

    // A thumb that meets the other takes it along.
    set(which, value) {
        setSlider(this.parts[which], value, false);
        const other = sliderValue(this.parts[1 - which]);
        if (which === 0 ? other < value : other > value) setSlider(this.parts[1 - which], value, false);
        this.show();
    }

    show() {
        if (!this.track) return;
        const values = this.parts.map(sliderValue);
        values.forEach((value, which) => {
            if (document.activeElement !== this.thumbs[which] || Number(this.thumbs[which].value) !== value) this.thumbs[which].value = value;
        });
        const style = `--from:${values[0] * 100}%;--to:${values[1] * 100}%`;
        if (this.track.getAttribute("style") !== style) this.track.setAttribute("style", style);
    }
}
