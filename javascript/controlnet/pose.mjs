// The pose editor: joints of OpenPose skeletons are dragged, people added and removed; the result is OpenPose JSON.
import {Dialog, fail, loadPicture} from "./dialog.mjs";
import {History, historyKey} from "./canvas/history.mjs";
import {Viewport} from "./canvas/viewport.mjs";

const SVG = "http://www.w3.org/2000/svg";
// Limbs of COCO's 18 joints, as OpenPose numbers them; the hands' fingers begin at the wrist.
const LIMBS = [[1, 2], [1, 5], [2, 3], [3, 4], [5, 6], [6, 7], [1, 8], [8, 9], [9, 10], [1, 11], [11, 12], [12, 13],
    [1, 0], [0, 14], [14, 16], [0, 15], [15, 17]];
const FINGERS = [0, 1, 2, 3, 4].flatMap((finger) => [0, 1, 2, 3].map((joint) => [joint ? finger * 4 + joint : 0, finger * 4 + joint + 1]));
const NAMES = ["nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye", "right ear", "left ear"];
const PARTS = {
    pose_keypoints_2d: {limbs: LIMBS, radius: 6, name: (i) => NAMES[i] ?? `joint ${i}`},
    hand_left_keypoints_2d: {limbs: FINGERS, radius: 3.5, name: (i) => `left hand ${i}`},
    hand_right_keypoints_2d: {limbs: FINGERS, radius: 3.5, name: (i) => `right hand ${i}`},
    face_keypoints_2d: {limbs: [], radius: 2, name: (i) => `face ${i}`},
};
// A standing person, in parts of the canvas.
const STANDING = [[0.5, 0.15], [0.5, 0.26], [0.42, 0.26], [0.38, 0.4], [0.37, 0.53], [0.58, 0.26], [0.62, 0.4], [0.63, 0.53],
    [0.45, 0.52], [0.44, 0.7], [0.43, 0.88], [0.55, 0.52], [0.56, 0.7], [0.57, 0.88], [0.48, 0.13], [0.52, 0.13], [0.46, 0.14], [0.54, 0.14]];

const colour = (i, count) => `hsl(${Math.round((360 * i) / count)} 100% 50%)`;
const element = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
};

export class PoseDialog extends Dialog {
    constructor(title, json, picture) {
        super(title);
        this.history = new History();
        this.chosen = null;
        this.details = true;
        this.svg = element("svg", {class: "cnet-pose"});
        const label = "Pose: tab through joints, arrow keys move them; + − 0 zoom, Alt+arrows or space bar and drag to move the view";
        this.view = new Viewport(label, this);
        this.buildBar();
        this.element.append(this.view.element);
        this.prepare(json, picture).then(() => this.open()).catch((error) => {
            this.finish(null);
            fail(error);
        });
    }

    buildBar() {
        this.button("Add person", () => this.change(() => this.people.push(this.newPerson())));
        this.button("Remove person", () => this.removePerson());
        this.button("Remove joint", () => this.removeJoint(), {key: "Delete"});
        this.detailButton = this.button("Hands and face", () => {
            this.details = !this.details;
            this.draw();
        });
        this.button("Undo", () => this.undo(), {key: "Ctrl+Z"});
        this.button("Redo", () => this.redo(), {key: "Ctrl+Shift+Z"});
        this.button("Fit", () => this.view.fit(), {key: "The whole pose (0)"});
        this.button("Save", () => this.close(this.json()), {main: true});
        this.button("Cancel", () => this.close());
        this.element.addEventListener("keydown", (event) => this.key(event));
    }

    async prepare(json, picture) {
        const behind = picture ? await loadPicture(picture).catch(() => null) : null;
        const read = json.trim() ? JSON.parse(json) : {};
        const pose = Array.isArray(read) ? read[0] ?? {} : read;
        this.other = {...pose};
        this.width = pose.canvas_width || behind?.naturalWidth || 512;
        this.height = pose.canvas_height || behind?.naturalHeight || 512;
        this.people = (pose.people ?? []).map((person) => this.absolute(person));
        if (!this.people.length) this.people.push(this.newPerson());
        this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
        this.view.stage.append(this.svg);
        this.view.setSize(this.width, this.height);
        this.behind = behind;
        this.scale = Math.max(this.width, this.height) / 512;
        this.draw();
    }

    // Detection gives parts of the canvas, editors give pixels; here everything is pixels.
    absolute(person) {
        const copy = {...person};
        for (const part of Object.keys(PARTS)) {
            const flat = person[part];
            if (!flat?.length) continue;
            const relative = flat.every((value, i) => i % 3 === 2 || Math.abs(value) <= 1);
            copy[part] = flat.map((value, i) => (i % 3 === 2 || !relative ? value : value * (i % 3 ? this.height : this.width)));
        }
        return copy;
    }

    newPerson() {
        return {pose_keypoints_2d: STANDING.flatMap(([x, y]) => [x * this.width, y * this.height, 1])};
    }

    json() {
        return JSON.stringify({...this.other, people: this.people, canvas_width: this.width, canvas_height: this.height});
    }

    draw() {
        const focused = this.chosen;
        this.svg.replaceChildren();
        if (this.behind) {
            this.svg.append(element("image", {href: this.behind.src, width: this.width, height: this.height, opacity: 0.35, preserveAspectRatio: "none"}));
        }
        this.detailButton.setAttribute("aria-pressed", String(this.details));
        this.people.forEach((person, number) => {
            for (const part of Object.keys(PARTS)) {
                if (part === "pose_keypoints_2d" || this.details) this.drawPart(person, number, part);
            }
        });
        if (focused) this.svg.querySelector(`circle[data-joint="${focused.number}-${focused.part}-${focused.joint}"]`)?.focus();
    }

    drawPart(person, number, part) {
        const flat = person[part];
        if (!flat?.length) return;
        const {limbs, radius, name} = PARTS[part];
        const there = (i) => flat[i * 3 + 2] > 0;
        limbs.forEach(([from, to], i) => {
            if (!there(from) || !there(to)) return;
            const ends = {x1: flat[from * 3], y1: flat[from * 3 + 1], x2: flat[to * 3], y2: flat[to * 3 + 1]};
            this.svg.append(element("line", {...ends, stroke: colour(i, limbs.length), "stroke-width": radius * 0.8 * this.scale, opacity: 0.7}));
        });
        for (let joint = 0; joint * 3 < flat.length; joint += 1) {
            if (!there(joint)) continue;
            const circle = element("circle", {
                cx: flat[joint * 3], cy: flat[joint * 3 + 1], r: radius * this.scale, fill: colour(joint, flat.length / 3),
                tabindex: 0, role: "slider", "aria-label": `person ${number + 1}, ${name(joint)}`,
                "aria-valuetext": `${Math.round(flat[joint * 3])}, ${Math.round(flat[joint * 3 + 1])}`,
                "aria-valuenow": Math.round(flat[joint * 3]), "data-joint": `${number}-${part}-${joint}`,
            });
            circle.addEventListener("focus", () => { this.chosen = {number, part, joint}; });
            this.svg.append(circle);
        }
    }

    // The viewport's owner: what a pointer does that neither zooms nor pans.
    begin(event) {
        const chosen = event.target.dataset?.joint?.split("-");
        this.moving = Boolean(chosen);
        if (!this.moving) return;
        this.chosen = {number: Number(chosen[0]), part: chosen[1], joint: Number(chosen[2])};
        this.remember();
    }

    move(event) {
        if (this.moving) this.place(...this.view.place(event));
    }

    end() {
        this.moving = false;
    }

    cancel() {
        if (this.moving) this.undo();
        this.moving = false;
    }

    place(x, y) {
        const {number, part, joint} = this.chosen;
        const flat = this.people[number][part];
        flat[joint * 3] = Math.min(Math.max(x, 0), this.width);
        flat[joint * 3 + 1] = Math.min(Math.max(y, 0), this.height);
        this.draw();
    }

    key(event) {
        const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
        const step = event.altKey ? null : steps[event.key];
        if (step && this.chosen) {
            const size = (event.shiftKey ? 10 : 2) * this.scale;
            const {number, part, joint} = this.chosen;
            const flat = this.people[number][part];
            this.remember();
            this.place(flat[joint * 3] + step[0] * size, flat[joint * 3 + 1] + step[1] * size);
        } else if (event.key === "Delete") this.removeJoint();
        else if (historyKey(event)) this[historyKey(event)]();
        else if (event.target.closest("button") || !this.view.key(event)) return;
        event.preventDefault();
    }

    removeJoint() {
        if (!this.chosen) return;
        const {number, part, joint} = this.chosen;
        this.change(() => {
            this.people[number][part].splice(joint * 3, 3, 0, 0, 0);
            this.chosen = null;
        });
    }

    removePerson() {
        if (!this.people.length) return;
        this.change(() => {
            this.people.splice(this.chosen?.number ?? this.people.length - 1, 1);
            this.chosen = null;
        });
    }

    remember() {
        const entry = {people: JSON.stringify(this.people), swap: () => {
            const now = JSON.stringify(this.people);
            this.people = JSON.parse(entry.people);
            entry.people = now;
        }};
        this.history.push(entry);
    }

    change(action) {
        this.remember();
        action();
        this.draw();
    }

    undo() {
        this.restored(this.history.undo());
    }

    redo() {
        this.restored(this.history.redo());
    }

    restored(entry) {
        if (!entry) return;
        this.chosen = null;
        this.draw();
    }
}
