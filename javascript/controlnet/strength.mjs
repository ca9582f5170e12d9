// One slider for how strongly a unit acts; what that means for weight and range depends on the control type.
import {setSlider, sliderValue} from "./range.mjs";

const WEIGHT = "controlnet_control_weight_slider";
const START = "controlnet_start_control_step_slider";
const END = "controlnet_ending_control_step_slider";
const STEP = 5;

// [power, shortest end] by control type, which the panel carries in its page.
function known() {
    const holder = gradioApp().querySelector("[data-cnet-strengths]");
    return holder ? JSON.parse(holder.dataset.cnetStrengths) : {};
}

const rounded = (value, step) => Math.round(Math.round(value / step) * step * 1000) / 1000;

// {weight, end} of a strength in percent.
export function exact(percent, [power, shortest]) {
    const strength = percent / 100;
    return {weight: rounded(strength ** power, 0.05), end: rounded(shortest + (1 - shortest) * strength, 0.01)};
}

export class StrengthSlider {
    constructor(unit) {
        this.unit = unit;
        const weight = unit.part(WEIGHT);
        if (!weight) return;
        this.types = known();
        this.slider = Object.assign(document.createElement("input"), {type: "range", min: 0, max: 100, step: STEP, value: 100});
        this.slider.setAttribute("aria-label", `Strength of ${unit.name}`);
        this.said = document.createElement("output");
        const label = Object.assign(document.createElement("span"), {textContent: "Strength"});
        this.element = Object.assign(document.createElement("div"), {className: "cnet-strength"});
        this.element.title = "Weight and range together, as suits the control type";
        this.element.append(label, this.slider, this.said);
        this.slider.addEventListener("input", (event) => {
            event.stopPropagation();
            this.set(false);
        });
        this.slider.addEventListener("change", (event) => {
            event.stopPropagation();
            this.set(true);
        });
        weight.before(this.element);
        this.show();
    }

    type() {
        const chosen = this.unit.part("controlnet_type_filter_radio")?.querySelector("input:checked");
        return (chosen ?? this.unit.field("controlnet_type_filter_dropdown"))?.value ?? "All";
    }

    curve() {
        return this.types[this.type()] ?? [1, 1];
    }

    set(released) {
        const {weight, end} = exact(Number(this.slider.value), this.curve());
        setSlider(this.unit.part(WEIGHT), weight, released);
        setSlider(this.unit.part(START), 0, false);
        setSlider(this.unit.part(END), end, released);
        this.show();
    }

    // The strength that the exact numbers amount to; none where they were chosen one by one.
    show() {
        if (!this.element) return;
        const now = [WEIGHT, START, END].map((id) => sliderValue(this.unit.part(id)));
        const is = (percent) => {
            const {weight, end} = exact(percent, this.curve());
            return now[0] === weight && now[1] === 0 && now[2] === end;
        };
        const shown = Number(this.slider.value);
        const percents = Array.from({length: 100 / STEP + 1}, (_, index) => 100 - index * STEP);
        const found = is(shown) ? shown : percents.find(is);
        const text = found === undefined ? "own values" : `${found} %`;
        if (this.said.textContent !== text) this.said.textContent = text;
        this.slider.setAttribute("aria-valuetext", text);
        if (found !== undefined && found !== shown) this.slider.value = found;
        this.element.classList.toggle("cnet-own-values", found === undefined);
    }
}
