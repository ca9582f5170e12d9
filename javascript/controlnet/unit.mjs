// One unit: its tab's header, its pictures, its drawing tools.
import {acceptPageDrops, acceptPaste, fetchPicture, galleryPicture, putFile, shownPicture} from "./picture.mjs";
import {PoseDialog} from "./pose.mjs";
import {ExternalPoseDialog, externalEditorAnswers} from "./external_pose.mjs";
import {fail} from "./dialog.mjs";
import {chosenFile, interceptFiles, isJson, isSvg, poseText, rasterised} from "./files.mjs";
import {CurvePlot} from "./curve.mjs";
import {LayerBars} from "./layers.mjs";
import {Measuring} from "./measuring.mjs";
import {UnitCanvas} from "./canvas/unit_canvas.mjs";
import {OverlayDialog} from "./overlay.mjs";
import {Preview} from "./preview.mjs";
import {Problems} from "./problems.mjs";
import {RangeSlider} from "./range.mjs";
import {StrengthSlider} from "./strength.mjs";
import {PixelPerfectOffer} from "./pixel_perfect.mjs";

export class ControlNetUnit {
    constructor(panel, tab, index, button) {
        this.panel = panel;
        this.tab = tab;
        this.index = index;
        this.prefix = `${tab}_controlnet_ControlNet-${index}`;
        this.name = button.textContent.trim();
        this.shown = "";
        this.canvas = new UnitCanvas(this);
        this.problems = new Problems(this);
        this.preview = new Preview(this);
        this.helpers = [new StrengthSlider(this), new RangeSlider(this), new PixelPerfectOffer(this)];
        for (const [id, label] of [["controlnet_trigger_preprocessor", "Run preprocessor"], ["controlnet_refresh_models", "Refresh models"]]) {
            const tool = this.part(id);
            if (!tool) continue;
            tool.setAttribute("aria-label", label);
            if (!tool.title) tool.title = label;
        }
        for (const id of ["input_image", "mask_image", "effective_region_mask"]) {
            const component = this.part(id);
            if (!component) continue;
            acceptPageDrops(component, id === "input_image" ? () => this.enable() : undefined);
            acceptPaste(component);
            interceptFiles(component, (file) => isSvg(file) || isJson(file), (file) => this.takeFile(component, file).catch(fail));
            component.setAttribute("aria-label", `${this.name}: ${id.replaceAll("_", " ")}`);
            component.setAttribute("role", "group");
        }
        this.measuring = new Measuring(this);
        this.on("draw", () => this.canvas.open());
        this.on("controlnet_open_new_canvas_button", () => this.canvas.newCanvas());
        this.on("take_result", () => this.takeResult());
        this.on("overlay", () => this.showOverlay());
        this.on("edit_pose", () => this.editPose());
        this.on("save_pose", () => this.savePose());
        this.on("load_pose", () => this.loadPose());
        const weight = () => Number(this.field("controlnet_control_weight_slider")?.value ?? 1);
        for (const name of ["weight_schedule", "hr_weight_schedule"]) {
            new CurvePlot(this.part(`controlnet_${name}_plot`), () => this.field(`controlnet_${name}`), weight);
        }
        new LayerBars(this.part("controlnet_layer_plot"), () => this.field("controlnet_advanced_weighting"));
    }

    part(id) {
        return gradioApp().getElementById(`${this.prefix}_${id}`);
    }

    field(id) {
        return this.part(id)?.querySelector("textarea, input") ?? null;
    }

    on(id, handler) {
        this.part(id)?.addEventListener("click", () => Promise.resolve().then(handler).catch(fail));
    }

    isTicked(id) {
        return Boolean(this.field(id)?.checked);
    }

    tick(id) {
        const box = this.field(id);
        if (box && !box.checked) box.click();
    }

    get enabled() {
        return this.isTicked("controlnet_enable_checkbox");
    }

    enable() {
        this.tick("controlnet_enable_checkbox");
    }

    // The part of the page that holds this unit's widgets.
    root() {
        return this.part("controlnet_enable_checkbox").closest(".tabitem") ?? this.panel.root;
    }

    // A picture that is a map already: it goes to the model as it is.
    async takeMap(blob) {
        putFile(this.part("input_image"), blob, "map.png");
        this.part("take_as_map")?.click();
    }

    showOverlay() {
        const result = galleryPicture(this.tab);
        const map = shownPicture(this.part("generated_image"));
        if (!result || !map) throw new Error("Both a map and a result are needed: run the preprocessor and generate a picture.");
        return new OverlayDialog(`Map of ${this.name} over the result`, result.src, map.src).result;
    }

    recheck() {
        this.part("recheck")?.click();
    }

    // The header says what is on: preprocessor or model, weight, and the picture.
    show(button) {
        this.problems.refresh();
        this.preview.refresh();
        for (const helper of this.helpers) helper.show();
        if (!button) return;
        button.classList.toggle("cnet-unit-active", this.enabled);
        const module = this.field("controlnet_preprocessor_dropdown")?.value ?? "none";
        const model = (this.field("controlnet_model_dropdown")?.value ?? "None").replace(/ \[[0-9a-f]+\]$/, "");
        const what = module !== "none" ? module.replace(/ \(.*/, "") : model !== "None" ? model : "";
        const curve = this.field("controlnet_weight_schedule")?.value.trim();
        const weight = curve ? "curve" : Number(this.field("controlnet_control_weight_slider")?.value ?? 1);
        const thumbnail = typeof opts !== "object" || opts.controlnet_input_thumbnail !== false;
        const picture = this.enabled && thumbnail ? shownPicture(this.part("input_image"))?.src ?? "" : "";
        const facts = this.enabled && what ? `${what} · ${weight}` : "";
        const state = `${facts}|${picture.length}|${picture.slice(-40)}`;
        // gradio writes the button anew when tabs change, so what is there counts and not what was written
        const present = button.querySelector(".cnet-tab-facts")?.textContent ?? "";
        if (state === this.shown && present === facts && Boolean(button.querySelector(".cnet-thumb")) === Boolean(picture)) return;
        this.shown = state;
        button.querySelectorAll(".cnet-tab-facts, .cnet-thumb").forEach((old) => old.remove());
        if (picture) button.prepend(Object.assign(new Image(), {src: picture, alt: "", className: "cnet-thumb"}));
        if (facts) button.append(Object.assign(document.createElement("span"), {className: "cnet-tab-facts", textContent: facts}));
    }

    async takeResult() {
        const picture = galleryPicture(this.tab) ?? galleryPicture(this.tab === "txt2img" ? "img2img" : "txt2img");
        if (!picture) throw new Error("There is no picture in the gallery yet.");
        putFile(this.part("input_image"), await fetchPicture(picture.src), "result.png");
    }

    // An SVG becomes a picture of the job's size; a pose is drawn as the unit's map.
    async takeFile(component, file) {
        if (isJson(file)) return this.takePose(await poseText(file));
        return putFile(component, await rasterised(file, Math.max(...this.canvas.jobSize())), "drawing.png");
    }

    async loadPose() {
        const file = await chosenFile(".json,application/json");
        if (file) this.takePose(await poseText(file));
    }

    takePose(pose) {
        const text = this.field("pose_json");
        if (!text) throw new Error("This unit has no field for a pose.");
        text.value = pose;
        updateInput(text);
        // gradio takes the value over after this event, and the click must find it there
        requestAnimationFrame(() => this.part("draw_pose")?.click());
    }

    async editPose() {
        const text = this.field("pose_json");
        const behind = this.chosenPicture();
        const external = this.part("edit_pose").classList.contains("cnet-external-pose") && await externalEditorAnswers();
        const Editor = external ? ExternalPoseDialog : PoseDialog;
        const edited = await new Editor(`Pose of ${this.name}`, text?.value ?? "", behind?.src).result;
        if (edited !== null) this.takePose(edited);
    }

    // What the pose is drawn over: the picture, unless that is a map itself.
    chosenPicture() {
        const module = this.field("controlnet_preprocessor_dropdown")?.value;
        return module === "none" ? null : shownPicture(this.part("input_image"));
    }

    savePose() {
        const text = this.field("pose_json")?.value;
        if (!text) throw new Error("There is no pose to save.");
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
        link.download = "pose.json";
        link.click();
        URL.revokeObjectURL(link.href);
    }
}
