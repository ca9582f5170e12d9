// The map that a unit shows: whether it still is what its settings would give.

const DECIDING = ["controlnet_preprocessor_dropdown", "controlnet_preprocessor_resolution_slider", "controlnet_threshold_A_slider",
    "controlnet_threshold_B_slider", "controlnet_pixel_perfect_checkbox", "controlnet_resize_mode_radio"];

export class Preview {
    constructor(unit) {
        this.unit = unit;
        this.made = "";
        this.settings = "";
    }

    // A server that made the map again says so with another number; until then a changed setting makes it old.
    refresh() {
        const group = this.unit.part("preview_group");
        if (!group) return;
        const made = this.unit.part("made")?.querySelector("[data-said]")?.dataset.said ?? "";
        const settings = this.read();
        if (made !== this.made) {
            this.made = made;
            this.settings = settings;
        }
        const old = Boolean(made) && settings !== this.settings;
        if (group.classList.contains("cnet-stale") !== old) group.classList.toggle("cnet-stale", old);
    }

    read() {
        return JSON.stringify(DECIDING.map((id) => {
            const part = this.unit.part(id);
            const chosen = part?.querySelector("input[type=radio]:checked");
            const field = part?.querySelector("input");
            return chosen?.value ?? (field?.type === "checkbox" ? field.checked : field?.value);
        }));
    }
}
