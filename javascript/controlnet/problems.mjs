// What went wrong in a unit stands at the field it is about, until that is changed.

// The fields as errors name them -> the ids of their widgets.
const PLACES = {
    image: "input_image",
    mask: "mask_image",
    effective_region_mask: "effective_region_mask",
    module: "controlnet_preprocessor_dropdown",
    model: "controlnet_model_dropdown",
    weight: "controlnet_control_weight_slider",
    guidance_start: "controlnet_start_control_step_slider",
    guidance_end: "controlnet_ending_control_step_slider",
    processor_res: "controlnet_preprocessor_resolution_slider",
    resolution: "controlnet_preprocessor_resolution_slider",
    threshold_a: "controlnet_threshold_A_slider",
    threshold_b: "controlnet_threshold_B_slider",
    control_mode: "controlnet_control_mode_radio",
    resize_mode: "controlnet_resize_mode_radio",
    hr_option: "controlnet_hr_option_radio",
    union_control_type: "controlnet_union_control_type",
    advanced_weighting: "controlnet_advanced_weighting",
    weight_schedule: "controlnet_weight_schedule",
    hr_weight_schedule: "controlnet_hr_weight_schedule",
    batch_weights: "controlnet_batch_weighting",
    ip_layer_weights: "controlnet_ip_layer_weighting",
    ip_uncond_image: "controlnet_ip_uncond_image",
    ipadapter_input: "controlnet_ipadapter_input",
    embeddings: "controlnet_ipadapter_input",
    uncond_image: "controlnet_ip_uncond_image",
    batch_dir: "batch_image_dir",
    output_dir: "batch_output_dir",
    batch_images: "batch_input",
    images: "batch_input",
    merge_images: "merge_input",
    pose: "pose_json",
    preset: "presets",
};
const OF_A_UNIT = /ControlNet unit (\d+)(?:, (\w+))?: [^<]*/;

// Unit, field and words of an error that a job ended with; null where it is nobody's of ours.
export function unitError(text) {
    const found = text.match(OF_A_UNIT);
    return found && {unit: Number(found[1]), field: found[2] ?? "", text: found[0].trim()};
}

function values(element) {
    const fields = Array.from(element.querySelectorAll("input:not([type=file]), textarea"), (field) => (
        field.type === "radio" || field.type === "checkbox" ? field.checked : field.value));
    const pictures = Array.from(element.querySelectorAll("img[src]"), (image) => `${image.src.length}${image.src.slice(-60)}`);
    const files = Array.from(element.querySelectorAll(".file-preview a"), (link) => link.href);
    return JSON.stringify([fields, pictures, files]);
}

export class Problems {
    constructor(unit) {
        this.unit = unit;
        this.seen = "";
        this.shown = null;
    }

    // Called whenever something in the panel has changed: takes over what the server said, drops what is mended.
    refresh() {
        const said = this.unit.part("problem")?.querySelector("[data-said]");
        const number = said?.dataset.said ?? "";
        if (number !== this.seen) {
            this.seen = number;
            if (said) this.show(said.dataset.field, said.textContent);
            else if (this.shown?.origin === "page") this.clear();
        }
        if (this.shown && values(this.shown.watched) !== this.shown.values) this.clear();
    }

    show(field, text, origin = "page") {
        this.clear();
        const place = this.unit.part(PLACES[field]);
        const visible = place && place.offsetParent !== null;
        const home = visible ? place : this.unit.part("problem");
        if (!home) return;
        const note = Object.assign(document.createElement("p"), {className: "cnet-note cnet-bad cnet-standing", textContent: text});
        note.id = `${this.unit.prefix}_standing`;
        note.setAttribute("role", "alert");
        const row = home.closest(".controlnet_row"); // between a row's fields it would be as narrow as one of them
        (row && this.unit.root().contains(row) ? row : home).after(note);
        const marked = visible ? place : null;
        const control = marked?.querySelector("input, textarea, select");
        marked?.classList.add("cnet-faulty");
        control?.setAttribute("aria-invalid", "true");
        control?.setAttribute("aria-describedby", note.id);
        const watched = marked ?? this.unit.root();
        this.shown = {note, marked, control, watched, origin, values: values(watched)};
    }

    clear() {
        if (!this.shown) return;
        const {note, marked, control} = this.shown;
        note.remove();
        marked?.classList.remove("cnet-faulty");
        control?.removeAttribute("aria-invalid");
        control?.removeAttribute("aria-describedby");
        this.shown = null;
    }
}
