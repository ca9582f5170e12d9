// Draws a mask over a picture: white where it acts. Mouse, pen and finger; brush, eraser, undo.
import {Dialog, fail, loadPicture} from "./dialog.mjs";

const VEIL = "rgba(255, 80, 80, 0.55)";

export class DrawingDialog extends Dialog {
    constructor(title, picture, mask) {
        super(title);
        this.size = 32;
        this.erasing = false;
        this.strokes = [];
        this.canvas = document.createElement("canvas");
        this.canvas.setAttribute("aria-label", "Drawing surface");
        this.canvas.setAttribute("role", "img");
        this.buildBar();
        this.element.append(this.canvas);
        this.prepare(picture, mask).then(() => this.open()).catch((error) => {
            this.finish(null);
            fail(error);
        });
    }

    buildBar() {
        this.slider("Brush", 2, 200, this.size, (value) => { this.size = value; });
        this.eraser = this.button("Eraser", () => this.erase(!this.erasing), {key: "E"});
        this.button("Undo", () => this.undo(), {key: "Ctrl+Z"});
        this.button("Clear", () => this.record(() => this.mask.clearRect(0, 0, this.width, this.height)));
        this.button("Invert", () => this.record(() => this.invert()));
        this.button("Save", () => this.save(), {main: true});
        this.button("Cancel", () => this.close());
        this.element.addEventListener("keydown", (event) => {
            if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) this.undo();
            else if (event.key.toLowerCase() === "e") this.erase(!this.erasing);
            else return;
            event.preventDefault();
        });
    }

    async prepare(picture, mask) {
        this.picture = await loadPicture(picture);
        this.width = this.canvas.width = this.picture.naturalWidth;
        this.height = this.canvas.height = this.picture.naturalHeight;
        this.size = Math.max(4, Math.round(Math.max(this.width, this.height) / 24));
        this.bar.querySelector("input").value = this.size;
        const layer = new OffscreenCanvas(this.width, this.height);
        this.mask = layer.getContext("2d", {willReadFrequently: true});
        if (mask) this.readMask(await loadPicture(mask));
        this.screen = this.canvas.getContext("2d");
        this.canvas.addEventListener("pointerdown", (event) => this.stroke(event));
        this.paint();
    }

    // A mask file is white where it acts; on the layer that is what is opaque.
    readMask(image) {
        this.mask.drawImage(image, 0, 0, this.width, this.height);
        const pixels = this.mask.getImageData(0, 0, this.width, this.height);
        for (let i = 0; i < pixels.data.length; i += 4) {
            pixels.data[i + 3] = Math.min(pixels.data[i], pixels.data[i + 3]);
            pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = 255;
        }
        this.mask.putImageData(pixels, 0, 0);
    }

    paint() {
        this.screen.globalCompositeOperation = "source-over";
        this.screen.drawImage(this.picture, 0, 0);
        const veil = new OffscreenCanvas(this.width, this.height);
        const context = veil.getContext("2d");
        context.drawImage(this.mask.canvas, 0, 0);
        context.globalCompositeOperation = "source-in";
        context.fillStyle = VEIL;
        context.fillRect(0, 0, this.width, this.height);
        this.screen.drawImage(veil, 0, 0);
    }

    stroke(event) {
        event.preventDefault();
        this.canvas.setPointerCapture(event.pointerId);
        this.remember();
        let [x, y] = this.place(event);
        const line = (moved) => {
            const [nextX, nextY] = this.place(moved);
            this.mask.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
            Object.assign(this.mask, {lineWidth: this.size, lineCap: "round", lineJoin: "round", strokeStyle: "#fff"});
            this.mask.beginPath();
            this.mask.moveTo(x, y);
            this.mask.lineTo(nextX, nextY + 0.01);
            this.mask.stroke();
            this.mask.globalCompositeOperation = "source-over";
            [x, y] = [nextX, nextY];
            this.paint();
        };
        line(event);
        this.canvas.addEventListener("pointermove", line);
        this.canvas.addEventListener("pointerup", () => this.canvas.removeEventListener("pointermove", line), {once: true});
    }

    place(event) {
        const box = this.canvas.getBoundingClientRect();
        return [((event.clientX - box.left) / box.width) * this.width, ((event.clientY - box.top) / box.height) * this.height];
    }

    remember() {
        this.strokes.push(this.mask.getImageData(0, 0, this.width, this.height));
        if (this.strokes.length > 20) this.strokes.shift();
    }

    record(change) {
        this.remember();
        change();
        this.paint();
    }

    invert() {
        const pixels = this.mask.getImageData(0, 0, this.width, this.height);
        for (let i = 0; i < pixels.data.length; i += 4) {
            pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = 255;
            pixels.data[i + 3] = 255 - pixels.data[i + 3];
        }
        this.mask.putImageData(pixels, 0, 0);
    }

    undo() {
        const before = this.strokes.pop();
        if (!before) return;
        this.mask.putImageData(before, 0, 0);
        this.paint();
    }

    erase(on) {
        this.erasing = on;
        this.eraser.setAttribute("aria-pressed", String(on));
    }

    async save() {
        const flat = new OffscreenCanvas(this.width, this.height);
        const context = flat.getContext("2d");
        context.fillStyle = "#000";
        context.fillRect(0, 0, this.width, this.height);
        context.drawImage(this.mask.canvas, 0, 0);
        this.close(await flat.convertToBlob({type: "image/png"}));
    }
}
