// One layer of the canvas: its pixels, how they were before the change that is under way, and the element that shows them.
import {joined} from "./raster.mjs";

export class Layer {
    // colour: what a mask is shown in; null for a layer of colours.
    constructor(name, width, height, colour = null) {
        Object.assign(this, {name, width, height, colour});
        this.canvas = Object.assign(document.createElement("canvas"), {width, height, className: `cnet-layer cnet-layer-${name}`});
        this.context = this.canvas.getContext("2d", {willReadFrequently: true});
        this.image = new ImageData(width, height);
        this.pixels = new Uint32Array(this.image.data.buffer);
        this.before = new Uint32Array(this.pixels.length);
        this.touched = null;
        this.version = 0; // of what is drawn, to tell whether it was sent
    }

    // change(layer) writes pixels and returns the box of them, or null.
    draw(change) {
        const box = change(this);
        if (!box) return;
        this.touched = joined(this.touched, box);
        this.show(box);
    }

    show({left, top, right, bottom}) {
        this.context.putImageData(this.image, 0, 0, left, top, right - left, bottom - top);
    }

    // Takes back what was drawn since the last commit.
    revert() {
        const box = this.touched;
        if (!box) return;
        for (let y = box.top; y < box.bottom; y += 1) {
            const start = y * this.width;
            this.pixels.set(this.before.subarray(start + box.left, start + box.right), start + box.left);
        }
        this.touched = null;
        this.show(box);
    }

    // What was drawn since the last commit as an entry of the history; null where nothing was.
    commit() {
        const box = this.touched;
        if (!box) return null;
        this.touched = null;
        this.version += 1;
        const kept = new Uint32Array((box.right - box.left) * (box.bottom - box.top));
        this.rows(box, (start, end, at) => {
            kept.set(this.before.subarray(start, end), at);
            this.before.set(this.pixels.subarray(start, end), start);
        });
        return {layer: this, bytes: kept.byteLength, swap: () => this.exchange(box, kept)};
    }

    exchange(box, kept) {
        this.rows(box, (start, end, at) => {
            const row = this.pixels.slice(start, end);
            this.pixels.set(kept.subarray(at, at + row.length), start);
            this.before.set(kept.subarray(at, at + row.length), start);
            kept.set(row, at);
        });
        this.version += 1;
        this.show(box);
    }

    rows({left, top, right, bottom}, act) {
        for (let y = top; y < bottom; y += 1) act(y * this.width + left, y * this.width + right, (y - top) * (right - left));
    }

    get whole() {
        return {left: 0, top: 0, right: this.width, bottom: this.height};
    }

    get empty() {
        return this.pixels.every((pixel) => !(pixel >>> 24));
    }

    clear() {
        this.draw((layer) => {
            layer.pixels.fill(0);
            return layer.whole;
        });
    }

    // What is there and what is not change places; of a layer of colours, each colour becomes its opposite.
    invert() {
        const flip = this.colour === null
            ? (pixel) => (pixel >>> 24 ? (pixel ^ 0xffffff) >>> 0 : 0)
            : (pixel) => ((this.colour & 0xffffff) | ((255 - (pixel >>> 24)) << 24)) >>> 0;
        this.draw((layer) => {
            for (let i = 0; i < layer.pixels.length; i += 1) layer.pixels[i] = flip(layer.pixels[i]);
            return layer.whole;
        });
    }

    // A mask's file: its alpha channel where that says something, else its brightness, as the server reads it.
    loadMask(source) {
        const reader = new OffscreenCanvas(this.width, this.height).getContext("2d", {willReadFrequently: true});
        reader.drawImage(source, 0, 0, this.width, this.height);
        const {data} = reader.getImageData(0, 0, this.width, this.height);
        const read = new Uint32Array(data.buffer);
        const byAlpha = read.some((pixel) => pixel >>> 24 < 255);
        const rgb = this.colour & 0xffffff;
        for (let i = 0; i < read.length; i += 1) {
            const strength = byAlpha ? read[i] >>> 24 : read[i] & 0xff;
            this.pixels[i] = strength ? (rgb | (strength << 24)) >>> 0 : 0;
        }
        this.before.set(this.pixels);
        this.show(this.whole);
    }

    // White on black, for the server.
    async maskFile() {
        const flat = new OffscreenCanvas(this.width, this.height);
        const context = flat.getContext("2d");
        context.drawImage(this.canvas, 0, 0);
        context.globalCompositeOperation = "source-in";
        context.fillStyle = "#fff";
        context.fillRect(0, 0, this.width, this.height);
        context.globalCompositeOperation = "destination-over";
        context.fillStyle = "#000";
        context.fillRect(0, 0, this.width, this.height);
        return flat.convertToBlob({type: "image/png"});
    }
}
