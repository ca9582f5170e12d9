// What is drawn: a picture or paper behind, and the layers drawing, mask and region over it.
import {Layer} from "./layer.mjs";
import {pixelOf} from "./raster.mjs";

export const LAYERS = ["drawing", "mask", "region"];
export const MASK_COLOUR = "#ff4040";

export class Document {
    // behind: a colour for paper, or a picture that can be drawn on a canvas. regionColour: the unit's.
    constructor(width, height, behind, regionColour) {
        this.width = width;
        this.height = height;
        this.colours = {mask: pixelOf(MASK_COLOUR), region: pixelOf(regionColour), drawing: null};
        this.paper = typeof behind === "string" ? behind : null;
        this.background = Object.assign(document.createElement("canvas"), {width, height, className: "cnet-layer"});
        this.context = this.background.getContext("2d");
        if (this.paper) {
            this.context.fillStyle = this.paper;
            this.context.fillRect(0, 0, width, height);
        } else this.context.drawImage(behind, 0, 0, width, height);
        this.layers = new Map();
    }

    // Made when it is first asked for: a photograph's layers take memory.
    layer(name) {
        let layer = this.layers.get(name);
        if (!layer) {
            layer = new Layer(name, this.width, this.height, this.colours[name]);
            this.layers.set(name, layer);
            this.grown?.(layer);
        }
        return layer;
    }

    get bytes() {
        return this.width * this.height * 4 * (1 + 3 * this.layers.size);
    }

    // The background's colours turned over, as an entry of the history that is made.
    invertBackground() {
        const swap = () => {
            this.context.globalCompositeOperation = "difference";
            this.context.fillStyle = "#fff";
            this.context.fillRect(0, 0, this.width, this.height);
            this.context.globalCompositeOperation = "source-over";
            if (this.paper) this.paper = `#${(0xffffff - parseInt(this.paper.slice(1), 16)).toString(16).padStart(6, "0")}`;
        };
        swap();
        return {swap, bytes: 0};
    }

    // What the unit gets of a layer, as a PNG; null of a mask on which nothing is.
    async file(name) {
        if (name === "drawing") {
            const flat = new OffscreenCanvas(this.width, this.height);
            const context = flat.getContext("2d");
            context.drawImage(this.background, 0, 0);
            if (this.layers.has(name)) context.drawImage(this.layer(name).canvas, 0, 0);
            return flat.convertToBlob({type: "image/png"});
        }
        const layer = this.layers.get(name);
        return !layer || layer.empty ? null : layer.maskFile();
    }
}
