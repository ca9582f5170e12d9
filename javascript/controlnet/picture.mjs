// Pictures in and out of gradio's image components, the same way in gradio 3 and 4: through their file inputs.

export function shownPicture(component) {
    return component?.querySelector("img[src]:not(.cnet-thumb)") ?? null;
}

const clearButton = (component) => component?.querySelector('button[aria-label="Clear"], button[aria-label="Remove Image"], button[title="Clear"]');

export function clearPicture(component) {
    clearButton(component)?.click();
}

// Gives a component a picture as if the user had chosen the file.
export function putFile(component, blob, name = "picture.png") {
    const input = component?.querySelector('input[type="file"]');
    if (input) {
        const transfer = new DataTransfer();
        transfer.items.add(new File([blob], name, {type: blob.type || "image/png"}));
        input.files = transfer.files;
        input.dispatchEvent(new Event("change", {bubbles: true}));
        return true;
    }
    const clear = clearButton(component);
    if (!clear) return false;
    // A component that holds a picture has no file input until it is emptied.
    const observer = new MutationObserver(() => {
        if (!component.querySelector('input[type="file"]')) return;
        observer.disconnect();
        putFile(component, blob, name);
    });
    observer.observe(component, {childList: true, subtree: true});
    clear.click();
    return true;
}

export async function fetchPicture(address) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`the picture cannot be fetched: ${answer.status} ${answer.statusText}`);
    return answer.blob();
}

// The picture that is open in a tab's gallery, or its first.
export function galleryPicture(tab) {
    const gallery = gradioApp().getElementById(`${tab}_gallery`);
    if (!gallery) return null;
    return gallery.querySelector(".preview > .image-button img, .preview > img, .preview img[data-testid='detailed-image']")
        ?? gallery.querySelector(".thumbnail-item.selected img, .grid-wrap img, img");
}

// Drops of pictures from within the page (gallery, other units): the browser gives an address and no file.
export function acceptPageDrops(component, taken) {
    const address = (event) => event.dataTransfer?.getData("text/uri-list") || event.dataTransfer?.getData("text/plain");
    component.addEventListener("dragover", (event) => {
        if (event.dataTransfer?.types.includes("Files") && !event.dataTransfer.types.includes("text/uri-list")) return;
        event.preventDefault();
        component.classList.add("cnet-drop");
    });
    component.addEventListener("dragleave", () => component.classList.remove("cnet-drop"));
    component.addEventListener("drop", async (event) => {
        component.classList.remove("cnet-drop");
        const url = address(event);
        if (!url || new URL(url, location.href).origin !== location.origin) return;
        event.preventDefault();
        event.stopPropagation();
        putFile(component, await fetchPicture(url));
        taken?.();
    }, true);
}

// A paste while the pointer or the focus is in the component.
export function acceptPaste(component) {
    component.tabIndex = component.tabIndex < 0 ? 0 : component.tabIndex;
    component.addEventListener("paste", (event) => {
        const file = Array.from(event.clipboardData?.files ?? []).find((item) => item.type.startsWith("image/"));
        if (!file) return;
        event.preventDefault();
        event.stopPropagation();
        putFile(component, file, file.name || "pasted.png");
    });
}
