// The map over the result: how much of it is seen, and up to where.
import {Dialog, loadPicture} from "./dialog.mjs";

const SMALLEST = 512;

export class OverlayDialog extends Dialog {
    constructor(title, result, map) {
        super(title);
        this.opacity = 0.6;
        this.edge = 1;
        this.canvas = document.createElement("canvas");
        this.canvas.setAttribute("role", "img");
        this.canvas.setAttribute("aria-label", "The result with the map over it");
        this.slider("Opacity of the map", 0, 100, 60, (value) => this.set({opacity: value / 100}));
        this.slider("Map up to", 0, 100, 100, (value) => this.set({edge: value / 100}));
        this.button("Close", () => this.close(), {main: true});
        this.element.append(this.canvas);
        this.canvas.addEventListener("pointerdown", (event) => this.wipe(event));
        this.prepare(result, map).then(() => this.open());
    }

    async prepare(result, map) {
        [this.result, this.map] = await Promise.all([loadPicture(result), loadPicture(map)]);
        this.canvas.width = this.result.naturalWidth;
        this.canvas.height = this.result.naturalHeight;
        this.canvas.style.width = `${Math.max(this.canvas.width, SMALLEST)}px`;
        this.draw();
    }

    set(values) {
        Object.assign(this, values);
        if (this.map) this.draw();
    }

    // The pointer on the picture moves the edge between the two.
    wipe(event) {
        event.preventDefault();
        const box = this.canvas.getBoundingClientRect();
        const range = this.bar.querySelectorAll("input")[1];
        const move = (moved) => {
            const edge = Math.min(Math.max((moved.clientX - box.left) / box.width, 0), 1);
            range.value = Math.round(edge * 100);
            this.set({edge});
        };
        window.addEventListener("pointermove", move);
        window.addEventListener("pointerup", () => window.removeEventListener("pointermove", move), {once: true});
        move(event);
    }

    draw() {
        const {width, height} = this.canvas;
        const pen = this.canvas.getContext("2d");
        pen.globalAlpha = 1;
        pen.drawImage(this.result, 0, 0, width, height);
        const edge = Math.round(width * this.edge);
        pen.save();
        pen.beginPath();
        pen.rect(0, 0, edge, height);
        pen.clip();
        pen.globalAlpha = this.opacity;
        pen.drawImage(this.map, 0, 0, width, height);
        pen.restore();
        if (edge > 0 && edge < width) {
            pen.fillStyle = "#ff5050";
            pen.fillRect(edge, 0, Math.max(1, Math.round(width / 400)), height);
        }
    }
}
