// Files that a unit takes besides pictures: drawings as SVG, which become pixels here, and poses as JSON.
import {loadPicture} from "./dialog.mjs";

const LARGEST = 4096;

export const isSvg = (file) => file.type === "image/svg+xml" || /\.svg$/i.test(file.name ?? "");
export const isJson = (file) => file.type === "application/json" || /\.json$/i.test(file.name ?? "");

// Width and height of an SVG; one that names none has its viewBox's shape, as large as `side`.
function sizeOf(svg, side) {
    const plain = (name) => {
        const [, number, unit] = svg.getAttribute(name)?.match(/^\s*([\d.]+)\s*(px)?\s*$/) ?? [];
        return number && unit !== "%" ? Number(number) : 0;
    };
    const box = (svg.getAttribute("viewBox") ?? "").trim().split(/[\s,]+/).map(Number);
    let [width, height] = [plain("width"), plain("height")];
    if (!(width > 0 && height > 0)) {
        const [w, h] = box.length === 4 && box[2] > 0 && box[3] > 0 ? [box[2], box[3]] : [1, 1];
        [width, height] = [(side * w) / Math.max(w, h), (side * h) / Math.max(w, h)];
    }
    const less = Math.min(1, LARGEST / Math.max(width, height));
    return [Math.max(1, Math.round(width * less)), Math.max(1, Math.round(height * less))];
}

// An SVG as a PNG on white paper. As an image it runs no script and fetches nothing.
export async function rasterised(file, side) {
    const parsed = new DOMParser().parseFromString(await file.text(), "image/svg+xml");
    const svg = parsed.documentElement;
    if (svg.nodeName !== "svg" || parsed.querySelector("parsererror")) throw new Error(`"${file.name}" is no SVG that a browser can read.`);
    const [width, height] = sizeOf(svg, side);
    if (!svg.hasAttribute("viewBox") && svg.hasAttribute("width") && svg.hasAttribute("height")) svg.setAttribute("viewBox", `0 0 ${parseFloat(svg.getAttribute("width"))} ${parseFloat(svg.getAttribute("height"))}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    const address = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(svg)], {type: "image/svg+xml"}));
    try {
        const picture = await loadPicture(address);
        const flat = new OffscreenCanvas(width, height);
        const context = flat.getContext("2d");
        context.fillStyle = "#fff";
        context.fillRect(0, 0, width, height);
        context.drawImage(picture, 0, 0, width, height);
        return await flat.convertToBlob({type: "image/png"});
    } finally {
        URL.revokeObjectURL(address);
    }
}

// The text of a pose's file. Throws where it is none.
export async function poseText(file) {
    const text = await file.text();
    let read = null;
    try {
        read = JSON.parse(text);
    } catch (error) {
        throw new Error(`"${file.name}" is no JSON: ${error.message}`);
    }
    const pose = Array.isArray(read) ? read[0] : read;
    if (!Array.isArray(pose?.people) && !Array.isArray(pose?.animals)) throw new Error(`"${file.name}" is no pose: OpenPose JSON has "people", "canvas_width" and "canvas_height".`);
    return text;
}

// Lets the user choose one file; null where none is chosen.
export function chosenFile(accept) {
    return new Promise((done) => {
        const input = Object.assign(document.createElement("input"), {type: "file", accept});
        input.addEventListener("change", () => done(input.files[0] ?? null));
        input.addEventListener("cancel", () => done(null));
        input.click();
    });
}

// Calls take(file) for a file that gradio's own component does not know, whichever way it comes; `known` tells those.
export function interceptFiles(component, known, take) {
    const caught = (event, files) => {
        const file = Array.from(files ?? []).find(known);
        if (!file) return;
        event.preventDefault();
        event.stopPropagation();
        take(file);
    };
    component.addEventListener("change", (event) => {
        if (event.target.type !== "file") return;
        caught(event, event.target.files);
    }, true);
    component.addEventListener("drop", (event) => caught(event, event.dataTransfer?.files), true);
    component.addEventListener("paste", (event) => caught(event, event.clipboardData?.files), true);
}
