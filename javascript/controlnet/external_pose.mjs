// The editor of the extension sd-webui-openpose-editor in a frame; it tells the same as our own: JSON, or null.
import {Dialog} from "./dialog.mjs";

const ADDRESS = "./openpose_editor_index/";
const PATIENCE = 5000;

// The extension may be installed and its pages not: it downloads them when it first starts.
export async function externalEditorAnswers() {
    const answer = await fetch(ADDRESS).catch(() => null);
    return Boolean(answer?.ok);
}

export class ExternalPoseDialog extends Dialog {
    constructor(title, json, picture) {
        super(title);
        this.message = {modalId: title, imageURL: picture, poseURL: `data:application/json;base64,${btoa(json.trim() || "{}")}`};
        this.told = false;
        this.button("Cancel", () => this.close());
        this.frame = Object.assign(document.createElement("iframe"), {title, className: "cnet-pose-frame"});
        this.frame.src = document.body.classList.contains("dark") ? `${ADDRESS}?theme=dark` : ADDRESS;
        this.element.append(this.frame);
        const listen = (event) => this.hear(event);
        window.addEventListener("message", listen);
        const patience = setTimeout(() => this.tell(), PATIENCE);
        this.result.then(() => {
            window.removeEventListener("message", listen);
            clearTimeout(patience);
        });
        this.open();
    }

    hear({source, data}) {
        if (source !== this.frame.contentWindow) return;
        if (data?.ready) this.tell();
        if (data?.modalId === this.message.modalId && data.poseURL) this.close(atob(data.poseURL.split(",", 2)[1]));
    }

    tell() {
        if (this.told) return;
        this.told = true;
        this.frame.contentWindow?.postMessage(this.message, location.origin);
        this.frame.focus();
    }
}
