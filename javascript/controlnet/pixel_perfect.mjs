// Offers Pixel Perfect where the preprocessor would work at another size than the job needs.
import {sliderValue} from "./range.mjs";
import {shownPicture} from "./picture.mjs";

const RESOLUTION = "controlnet_preprocessor_resolution_slider";
const PERFECT = "controlnet_pixel_perfect_checkbox";

// The short side at which the map needs no scaling: core/resize.py, pixel_perfect_resolution.
export function perfectResolution([width, height], [jobWidth, jobHeight], fills) {
    const factors = [jobHeight / height, jobWidth / width];
    return Math.max(1, Math.round((fills ? Math.min(...factors) : Math.max(...factors)) * Math.min(width, height)));
}

export class PixelPerfectOffer {
    constructor(unit) {
        this.unit = unit;
        const resolution = unit.part(RESOLUTION);
        if (!resolution) return;
        this.text = document.createElement("span");
        const button = Object.assign(document.createElement("button"), {type: "button", textContent: "Use Pixel Perfect"});
        button.addEventListener("click", () => unit.tick(PERFECT));
        this.note = Object.assign(document.createElement("p"), {className: "cnet-note cnet-warn cnet-offer", hidden: true});
        this.note.append(this.text, " ", button);
        resolution.after(this.note);
    }

    show() {
        if (!this.note) return;
        const best = this.best();
        const chosen = sliderValue(this.unit.part(RESOLUTION));
        const hidden = best === null || Math.abs(best - chosen) <= best / 8;
        if (this.note.hidden !== hidden) this.note.hidden = hidden;
        if (hidden) return;
        const [width, height] = this.unit.canvas.jobSize();
        const text = `The map is made at ${chosen} px and the picture is ${width} × ${height}: ${best} px would fit.`;
        if (this.text.textContent !== text) this.text.textContent = text;
    }

    // null where the question does not arise: no picture, no such setting, or settled already.
    best() {
        const picture = shownPicture(this.unit.part("input_image"));
        if (!picture?.naturalWidth || this.unit.isTicked(PERFECT)) return null;
        if (this.unit.part(RESOLUTION)?.offsetParent === null) return null; // last, because it makes the browser lay out the page
        const fills = this.unit.part("controlnet_resize_mode_radio")?.querySelector("input:checked")?.value === "Resize and Fill";
        return perfectResolution([picture.naturalWidth, picture.naturalHeight], this.unit.canvas.jobSize(), fills);
    }
}
