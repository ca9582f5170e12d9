"""Preprocessors that users of other extensions know and this version does not have.

They are not listed; asked for by name they are answered with what is missing instead of "unknown".
An entry leaves this table by getting a folder of its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unavailable:
    """A known preprocessor and what running it would need."""

    id: str
    needs: str
    label: str = ""
    control_types: tuple[str, ...] = ()
    alias: str = ""
    """Forge's name."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it is asked for by."""
        return tuple(name for name in (self.id, self.label, self.alias) if name)

    @property
    def reason(self) -> str:
        """Why it is not offered, as a clause."""
        return f"it needs {self.needs}, which this version cannot run"


_DEPTH = ("Depth",)
_IP = ("IP-Adapter",)
_LINEART = ("Lineart",)
_NORMAL = ("NormalMap",)
_POSE = ("OpenPose",)
_SCRIBBLE = ("Scribble", "SparseCtrl")
_SEG = ("Segmentation",)
_SOFT = ("SoftEdge",)
_T2I = ("T2I-Adapter",)

_CLIP_H = "the image encoder clip_h.pth"
_CLIP_G = "the image encoder clip_g.pth"
_HED = "the weights ControlNetHED.pth"
_MIDAS = "the weights dpt_hybrid-midas-501f0c75.pt"
_OPENPOSE = "the weights body_pose_model.pth"
_PIDI = "the weights table5_pidinet.pth"
_ANTELOPE = "the face models antelopev2 and the library insightface"
_BUFFALO = "the face models buffalo_l and the library insightface"
_DENSEPOSE = "the weights densepose_r50_fpn_dl.torchscript"

UNAVAILABLE: tuple[Unavailable, ...] = (
    Unavailable("depth", _MIDAS, "depth_midas", _DEPTH),
    Unavailable("depth_anything", "the weights depth_anything_vitl14.pth", control_types=_DEPTH),
    Unavailable("depth_anything_v2", "the weights depth_anything_v2_vitl.safetensors", control_types=_DEPTH),
    Unavailable("depth_hand_refiner", "the weights of ControlNet-HandRefiner-pruned", control_types=_DEPTH),
    Unavailable("depth_leres", "the weights res101.pth", control_types=_DEPTH),
    Unavailable("depth_leres++", "the weights res101.pth and latest_net_G.pth", control_types=_DEPTH),
    Unavailable("depth_marigold", "the model Bingxin/Marigold", control_types=_DEPTH),
    Unavailable("depth_zoe", "the weights ZoeD_M12_N.pt", control_types=_DEPTH),
    Unavailable("inpaint_only+lama", "the weights ControlNetLama.pth", control_types=("Inpaint",)),
    Unavailable("instant_id_face_embedding", _ANTELOPE, control_types=("Instant-ID",), alias="InsightFace (InstantID)"),
    Unavailable("instant_id_face_keypoints", _ANTELOPE, control_types=("Instant-ID",)),
    Unavailable("facexlib", "the weights and the library of facexlib"),
    Unavailable("ip-adapter-auto", "the IP-Adapter family", control_types=_IP),
    Unavailable("ip-adapter_clip_sd15", _CLIP_H, "ip-adapter_clip_h", _IP, alias="CLIP-ViT-H (IPAdapter)"),
    Unavailable("ip-adapter_clip_sdxl", _CLIP_G, "ip-adapter_clip_g", _IP, alias="CLIP-ViT-bigG (IPAdapter)"),
    Unavailable("ip-adapter_clip_sdxl_plus_vith", _CLIP_H, control_types=_IP),
    Unavailable("ip-adapter_face_id", _BUFFALO, control_types=_IP),
    Unavailable(
        "ip-adapter_face_id_plus",
        f"{_BUFFALO}, and {_CLIP_H}",
        control_types=_IP,
        alias="InsightFace+CLIP-H (IPAdapter)",
    ),
    Unavailable("ip-adapter_pulid", "facexlib, antelopev2 and EVA02-CLIP-L-14-336", control_types=_IP),
    Unavailable("lineart", "the weights sk_model.pth", "lineart_realistic", _LINEART),
    Unavailable("lineart_anime", "the weights netG.pth", control_types=_LINEART),
    Unavailable("lineart_anime_denoise", "the weights erika.pth", control_types=_LINEART),
    Unavailable("lineart_coarse", "the weights sk_model2.pth", control_types=_LINEART),
    Unavailable("mediapipe_face", "the library mediapipe with its face mesh"),
    Unavailable("mlsd", "the weights mlsd_large_512_fp32.pth", control_types=("MLSD",)),
    Unavailable("normal_bae", "the weights scannet.pt", control_types=_NORMAL, alias="normalbae"),
    Unavailable("normal_dsine", "the weights dsine.pt", control_types=_NORMAL),
    Unavailable("normal_map", _MIDAS, "normal_midas", _NORMAL),
    Unavailable("animal_openpose", "the weights yolox_l.onnx and rtmpose-m (AP-10K)", control_types=_POSE),
    Unavailable("densepose", _DENSEPOSE, "densepose (pruple bg & purple torso)", _POSE),
    Unavailable("densepose_parula", _DENSEPOSE, "densepose_parula (black bg & blue torso)", _POSE),
    Unavailable("dw_openpose_full", "the weights yolox_l.onnx and dw-ll_ucoco_384.onnx", control_types=_POSE),
    Unavailable("openpose", _OPENPOSE, control_types=_POSE),
    Unavailable("openpose_face", f"{_OPENPOSE} and facenet.pth", control_types=_POSE),
    Unavailable("openpose_faceonly", f"{_OPENPOSE} and facenet.pth", control_types=_POSE),
    Unavailable("openpose_full", f"{_OPENPOSE}, hand_pose_model.pth and facenet.pth", control_types=_POSE),
    Unavailable("openpose_hand", f"{_OPENPOSE} and hand_pose_model.pth", control_types=_POSE),
    Unavailable("revision_clipvision", _CLIP_G, control_types=("Revision",), alias="CLIP-G (Revision)"),
    Unavailable(
        "revision_ignore_prompt", _CLIP_G, control_types=("Revision",), alias="CLIP-G (Revision ignore prompt)"
    ),
    Unavailable("scribble_hed", _HED, control_types=_SCRIBBLE),
    Unavailable("pidinet_scribble", _PIDI, "scribble_pidinet", _SCRIBBLE),
    Unavailable("anime_face_segment", "the weights UNet.pth", "seg_anime_face", _SEG),
    Unavailable("mobile_sam", "the weights mobile_sam.pt", control_types=_SEG),
    Unavailable("oneformer_ade20k", "the weights of OneFormer (ADE20K)", "seg_ofade20k", _SEG),
    Unavailable("oneformer_coco", "the weights of OneFormer (COCO)", "seg_ofcoco", _SEG),
    Unavailable("segmentation", "the weights upernet_global_small.pth", "seg_ufade20k", _SEG),
    Unavailable("hed", _HED, "softedge_hed", _SOFT),
    Unavailable("hed_safe", _HED, "softedge_hedsafe", _SOFT),
    Unavailable("pidinet", _PIDI, "softedge_pidinet", _SOFT),
    Unavailable("pidinet_safe", _PIDI, "softedge_pidisafe", _SOFT),
    Unavailable("softedge_anyline", "the weights MTEED.pth", control_types=_SOFT),
    Unavailable("softedge_teed", "the weights 7_model.pth", control_types=_SOFT),
    Unavailable("pidinet_sketch", _PIDI, "t2ia_sketch_pidi", _T2I),
    Unavailable("clip_vision", "the image encoder clip_vitl.pth", "t2ia_style_clipvision", _T2I),
)
