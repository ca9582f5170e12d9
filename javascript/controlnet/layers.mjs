// The plot of layer weights as a control: drag a bar, or use the arrow keys on it.

const TOP = 2;

export class LayerBars {
    constructor(plot, field) {
        if (!plot) return;
        this.field = field;
        plot.addEventListener("pointerdown", (event) => {
            const bar = event.target.closest?.("rect[data-layer]");
            if (bar) this.drag(event, bar);
        });
    }

    drag(event, bar) {
        event.preventDefault();
        const svg = bar.closest("svg");
        const box = svg.getBoundingClientRect();
        const largest = Math.max(1, ...this.weights());
        const layer = Number(bar.dataset.layer);
        const set = (y) => {
            const part = (box.bottom - (2 / 34) * box.height - y) / ((30 / 34) * box.height);
            this.write(layer, Math.min(Math.max(part * largest, 0), TOP));
        };
        const move = (moved) => set(moved.clientY);
        window.addEventListener("pointermove", move);
        window.addEventListener("pointerup", () => window.removeEventListener("pointermove", move), {once: true});
        set(event.clientY);
    }

    weights() {
        return (this.field()?.value ?? "").split(/[\s,/[\]]+/).filter(Boolean).map(Number);
    }

    write(layer, value) {
        const weights = this.weights();
        weights[layer] = Math.round(value * 20) / 20;
        const field = this.field();
        field.value = weights.join(", ");
        updateInput(field);
    }
}
