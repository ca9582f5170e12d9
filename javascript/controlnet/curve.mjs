// The plot of a weight over the steps as a control: click for a point, drag it, arrow keys move it, Delete removes it.
// The server draws it from the text of the points; what is moved here ends in that text.

const LEFT = 14, TOP = 6, WIDTH = 276, HEIGHT = 80; // as in lib_controlnet/ui/curves.py
const HIGHEST = 2;
const STEP = 0.05;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const rounded = (value) => Math.round(value * 100) / 100;

export function readPoints(text) {
    const numbers = text.split(/[\s,;/:=[\]()]+/).filter(Boolean).map(Number);
    if (numbers.length % 2 || numbers.some(Number.isNaN)) return null;
    return Array.from({length: numbers.length / 2}, (_, i) => numbers.slice(2 * i, 2 * i + 2));
}

// Until the server draws it.
function newPoint() {
    const point = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    point.setAttribute("class", "cnet-curve-point");
    point.setAttribute("r", 4);
    point.dataset.point = "";
    return point;
}

export class CurvePlot {
    // weight: the unit's own, from which a new curve starts.
    constructor(plot, field, weight) {
        if (!plot) return;
        this.plot = plot;
        this.field = field;
        this.weight = weight;
        this.focused = null;
        plot.addEventListener("pointerdown", (event) => this.grasp(event));
        plot.addEventListener("dblclick", (event) => this.remove(this.indexOf(event.target)));
        plot.addEventListener("keydown", (event) => this.key(event));
        new MutationObserver(() => this.refocus()).observe(plot, {childList: true, subtree: true});
    }

    points() {
        return readPoints(this.field()?.value ?? "") ?? [];
    }

    indexOf(target) {
        const index = target.closest?.("[data-point]")?.dataset.point;
        return index === undefined ? -1 : Number(index);
    }

    grasp(event) {
        const svg = event.target.closest?.("svg.cnet-curve");
        if (!svg || event.button) return;
        event.preventDefault();
        const box = svg.getBoundingClientRect();
        const place = (at) => {
            const x = ((at.clientX - box.left) / box.width) * 300, y = ((at.clientY - box.top) / box.height) * 96;
            return [clamp((x - LEFT) / WIDTH, 0, 1), clamp((1 - (y - TOP) / HEIGHT) * HIGHEST, 0, HIGHEST)];
        };
        const points = this.points();
        const known = this.indexOf(event.target);
        const index = known < 0 ? this.insert(points, place(event)) : known;
        let moved = known < 0;
        const move = (at) => {
            moved = true;
            this.place(points, index, place(at));
            this.draw(svg, points);
        };
        const end = () => {
            window.removeEventListener("pointermove", move);
            window.removeEventListener("pointercancel", end);
            if (moved) this.write(points);
        };
        if (moved) this.draw(svg, points);
        else event.target.focus();
        window.addEventListener("pointermove", move);
        window.addEventListener("pointercancel", end, {once: true});
        window.addEventListener("pointerup", end, {once: true});
    }

    // A first point comes with its ends, so that the rest of the pass stays as it was.
    insert(points, [progress, weight]) {
        if (!points.length) {
            const own = clamp(this.weight(), 0, HIGHEST);
            points.push([0, own], [1, own]);
        }
        let index = points.findIndex((point) => point[0] > progress);
        if (index < 0) index = points.length;
        points.splice(index, 0, [progress, weight]);
        this.place(points, index, [progress, weight]);
        return index;
    }

    place(points, index, [progress, weight]) {
        const low = points[index - 1]?.[0] ?? 0, high = points[index + 1]?.[0] ?? 1;
        points[index] = [rounded(clamp(progress, low, high)), rounded(Math.round(weight / STEP) * STEP)];
    }

    draw(svg, points) {
        const at = ([progress, weight]) => [LEFT + WIDTH * progress, TOP + HEIGHT * (1 - weight / HIGHEST)];
        const ends = [[0, points[0][1]], ...points, [1, points[points.length - 1][1]]];
        const line = svg.querySelector("polyline");
        line.setAttribute("class", "cnet-curve-line");
        line.setAttribute("points", ends.map((point) => at(point).join(",")).join(" "));
        while (svg.querySelectorAll("[data-point]").length < points.length) svg.append(newPoint());
        svg.querySelectorAll("[data-point]").forEach((dot, index) => {
            const [x, y] = at(points[index]);
            dot.dataset.point = index;
            dot.setAttribute("cx", x);
            dot.setAttribute("cy", y);
        });
    }

    key(event) {
        const index = this.indexOf(event.target);
        const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
        if (index < 0) return;
        if (event.key === "Delete" || event.key === "Backspace") {
            event.preventDefault();
            this.remove(index);
            return;
        }
        const move = moves[event.key];
        if (!move) return;
        event.preventDefault();
        const points = this.points();
        const [progress, weight] = points[index];
        this.place(points, index, [progress + move[0] * STEP, clamp(weight + move[1] * STEP, 0, HIGHEST)]);
        this.focused = index;
        this.write(points);
    }

    remove(index) {
        if (index < 0) return;
        this.write(this.points().filter((_, other) => other !== index));
    }

    // The server's new drawing has new elements; the one that was being moved by keys stays the chosen one.
    refocus() {
        if (this.focused === null) return;
        const point = this.plot.querySelector(`[data-point="${this.focused}"]`);
        this.focused = null;
        point?.focus();
    }

    write(points) {
        const field = this.field();
        field.value = points.map(([progress, weight]) => `${progress}=${weight}`).join("/");
        updateInput(field);
    }
}
