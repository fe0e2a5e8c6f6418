"""RT-DETR with pose: pictures to classes, boxes, depths, rotations and translations.

The detection is transformers' RT-DETRv2: boxes and scores are bit for bit those of
``RTDetrV2ForObjectDetection`` with the same weights. Heads of each decoder layer add the pose; a branch for
masked reconstruction hides coarse features before the encoder.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from sightline.geometry.translation import correct_intrinsics, recover_translation
from sightline.rtdetr_pose.depth_fusion import DepthFusion
from sightline.rtdetr_pose.detector import STRIDES, build_detector, detector_config
from sightline.rtdetr_pose.masked_branch import (
    DecoderMIM,
    MaskedBranch,
    MimTarget,
    RenderTeacher,
    resize_mask,
)
from sightline.rtdetr_pose.pose_heads import IntrinsicsHead, PoseHeads, box_centers_px
from sightline.rtdetr_pose.query_selection import decode_queries
from sightline.rtdetr_pose.reconstruction_losses import foreground_entropy

__all__ = ["DecoderMIM", "RTDETRPose", "RenderTeacher"]

DepthMode = Literal["none", "fuse_mid"]
Outputs = dict[str, Any]
Targets = Sequence[Mapping[str, Tensor]]


_MAX_LOG_Z = 20.0


class RTDETRPose(nn.Module):
    """Classes, boxes and poses of the objects of a closed set, in one pass.

    Nothing is downloaded; :func:`~sightline.rtdetr_pose.detection_weights.load_detection_weights` fills the
    detector with published weights.

    Args:
        num_classes: object classes, without a background: scores are sigmoids.
        hidden_dim: channels of encoder and decoder.
        num_queries: boxes a picture.
        enable_mim: build the branch for masked reconstruction. It changes no other weight, drawn or loaded.
        use_uncertainty: predict the spread of depth and rotation.
        backbone: a preset of ``detector.PRESETS``: ``tiny r18 r34 r50m r50 r101``.
        detector: further fields of ``RTDetrV2Config``, as ``detector.detector_config`` takes them.
        depth_mode: ``fuse_mid`` adds a sensor's depth to the features; ``none`` takes no depth.
        mim_geom_channels: of the teacher's input: 2 for mask and depth, 3 with the mask's edge.
        mim_target: what is reconstructed: the ``teacher``'s features, or the geometry of the ``cells``.

    Example:
        >>> model = RTDETRPose(5, 64, 10, backbone="tiny").eval()
        >>> outputs = model(torch.rand(1, 3, 64, 96))
        >>> outputs["bbox"].shape, outputs["rot6d"].shape, outputs["k_delta"].tolist()
        (torch.Size([1, 10, 4]), torch.Size([1, 10, 6]), [[0.0, 0.0, 0.0, 0.0]])
        >>> model.translations(outputs).shape
        torch.Size([1, 10, 3])
    """

    object_sizes: Tensor

    def __init__(
        self,
        num_classes: int = 80,
        hidden_dim: int = 256,
        num_queries: int = 300,
        enable_mim: bool = False,
        *,
        use_uncertainty: bool = False,
        backbone: str = "r18",
        detector: Mapping[str, Any] | None = None,
        depth_mode: DepthMode | str = "none",
        mim_geom_channels: int = 2,
        mim_target: MimTarget | str = "teacher",
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "hidden_dim": hidden_dim,
            "num_queries": num_queries,
            "enable_mim": enable_mim,
            "use_uncertainty": use_uncertainty,
            "backbone": backbone,
            "detector": dict(detector) if detector else None,
            "depth_mode": depth_mode,
            "mim_geom_channels": mim_geom_channels,
            "mim_target": mim_target,
        }
        config = detector_config(
            backbone,
            num_classes=num_classes,
            hidden_dim=hidden_dim,
            num_queries=num_queries,
            overrides=detector,
        )
        self.detector = build_detector(config)
        self.pose_heads = nn.ModuleList(
            PoseHeads(
                config.d_model, use_uncertainty=use_uncertainty, fine_channels=config.encoder_hidden_dim
            )
            for _ in range(config.decoder_layers)
        )
        self.intrinsics_head = IntrinsicsHead(config.d_model)
        self.register_buffer("object_sizes", torch.ones(num_classes))
        if depth_mode not in get_args(DepthMode):
            raise ValueError(
                f"depth_mode: expected one of {', '.join(get_args(DepthMode))}, got {depth_mode!r}"
            )
        self.depth_fusion = DepthFusion(config.encoder_hidden_dim) if depth_mode == "fuse_mid" else None
        self.mim: MaskedBranch | None = None
        if enable_mim:
            # last, and with random numbers of its own: the rest is the same with and without it
            with torch.random.fork_rng(devices=[]):
                self.mim = MaskedBranch(config.encoder_hidden_dim, mim_geom_channels, mim_target)

    @property
    def num_classes(self) -> int:
        """Object classes."""
        return self.config["num_classes"]

    def set_objects(self, diameters: Sequence[float] | Float[Tensor, "classes"]) -> None:
        """Tell the depth prior how large the objects are.

        Args:
            diameters: one a class, metres.

        Raises:
            ValueError: another number of them, or one that is not positive and finite.
        """
        sizes = torch.as_tensor(diameters, dtype=torch.float32)
        if sizes.shape != self.object_sizes.shape or not bool(((sizes > 0) & sizes.isfinite()).all()):
            wanted = f"{len(self.object_sizes)} positive lengths in metres"
            raise ValueError(f"diameters: expected {wanted}, got {sizes.tolist()}")
        self.object_sizes.copy_(sizes)

    def forward(
        self,
        x: Float[Tensor, "b 3 h w"],
        geom_input: Float[Tensor, "..."] | None = None,
        feature_mask: Shaped[Tensor, "..."] | None = None,
        return_mim: bool = False,
        depth: Float[Tensor, "..."] | None = None,
        depth_valid: Shaped[Tensor, "..."] | None = None,
        *,
        intrinsics: Float[Tensor, "..."] | None = None,
        targets: Targets | None = None,
        masked_predictions: bool = False,
    ) -> Outputs:
        """Predict.

        Args:
            x: RGB in [0, 1]; sides multiples of 32.
            geom_input: ``(B, 2 or 3, h, w)`` geometry of the pictures, as ``masking.prepare_geometry`` makes.
            feature_mask: which cells to hide: ``(h, w)``, ``(B, h, w)`` or ``(B, 1, h, w)``; resized to the
                cells of stride 32 by taking the nearest. None hides nothing.
            return_mim: run the branch for masked reconstruction.
            depth: ``(B, 1, h, w)`` metres, of a model with ``depth_mode="fuse_mid"``; missing pixels hold 0,
                NaN or infinity.
            depth_valid: ``(B,)`` pictures whose depth counts, or ``(B, 1, h, w)`` pixels.
            intrinsics: ``(B, 3, 3)`` pixels of ``x``. Without them the focal length is taken as the longer
                side and the principal point as the picture's centre.
            targets: one dict a picture with ``labels (n,)`` and ``boxes (n, 4)``; in training they give the
                denoising queries.
            masked_predictions: let the predictions come from the masked features too. Otherwise the encoder
                runs twice with ``return_mim``, the backbone once.

        Returns:
            See :meth:`forward_from_features`.
        """
        height, width = x.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise ValueError(f"x: expected sides that are multiples of {STRIDES[-1]}, got {width} x {height}")
        return self.forward_from_features(
            self.encode_backbone(x),
            geom_input,
            feature_mask,
            return_mim,
            depth,
            depth_valid,
            intrinsics=intrinsics,
            targets=targets,
            masked_predictions=masked_predictions,
        )

    def encode_backbone(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The backbone's maps at strides 8, 16 and 32, to be kept while what follows is adapted."""
        return list(self.detector.backbone.model(x).feature_maps)

    def forward_from_features(
        self,
        features: Sequence[Float[Tensor, "b _ _ _"]],
        geom_input: Float[Tensor, "..."] | None = None,
        feature_mask: Shaped[Tensor, "..."] | None = None,
        return_mim: bool = False,
        depth: Float[Tensor, "..."] | None = None,
        depth_valid: Shaped[Tensor, "..."] | None = None,
        *,
        intrinsics: Float[Tensor, "..."] | None = None,
        targets: Targets | None = None,
        masked_predictions: bool = False,
    ) -> Outputs:
        """Predict from the backbone's maps.

        Args:
            features: of :meth:`encode_backbone`.
            geom_input: see :meth:`forward`, as all that follow.
            feature_mask: likewise.
            return_mim: likewise.
            depth: likewise.
            depth_valid: likewise.
            intrinsics: likewise.
            targets: likewise.
            masked_predictions: likewise.

        Returns:
            Of the last decoder layer ``logits (B, Q, C)``, ``bbox (B, Q, 4)`` cxcywh in [0, 1], ``log_z``,
            ``rot6d``, ``offsets`` (pixels) and with uncertainty ``log_sigma_z``, ``log_sigma_rot``; of the
            picture ``k_delta (B, 4)``, ``intrinsics (B, 3, 3)`` and ``image_size`` (width, height);
            ``enc_outputs`` with ``logits`` and ``bbox`` of the selected queries; ``aux_outputs``, in training
            or with targets, of the earlier layers; with denoising ``dn_outputs``, a dict of ``logits`` and
            ``bbox`` a layer, and ``dn_meta``; with ``return_mim`` ``mim``, see :meth:`reconstruct`.
        """
        image_size = (features[0].shape[-1] * STRIDES[0], features[0].shape[-2] * STRIDES[0])
        K = _intrinsics_or_default(intrinsics, features[0], image_size)
        projected = self._project(features, depth, depth_valid)
        mim: Outputs | None = None
        neck: list[Tensor] | None = None
        if return_mim:
            mim, masked_neck = self._reconstruct(projected, geom_input, feature_mask)
            neck = masked_neck if masked_predictions else None
        if neck is None:
            neck = self._encode(projected)
        outputs = self._decode(neck, K, image_size, targets)
        if mim is not None:
            mim["entropy"] = foreground_entropy(outputs["logits"], min_score=0.0)
            outputs["mim"] = mim
        return outputs

    def reconstruct(
        self,
        features: Sequence[Float[Tensor, "b _ _ _"]],
        geom_input: Float[Tensor, "..."] | None,
        feature_mask: Shaped[Tensor, "..."] | None,
        depth: Float[Tensor, "..."] | None = None,
        depth_valid: Shaped[Tensor, "..."] | None = None,
    ) -> Outputs:
        """Run the masked branch alone, without the decoder: what a step of adaptation needs.

        Args:
            features: of :meth:`encode_backbone`.
            geom_input: see :meth:`forward`.
            feature_mask: likewise.
            depth: likewise.
            depth_valid: likewise.

        Returns:
            ``recon_feat``, ``teacher_feat (B, D, h, w)`` (None without geometry) and ``mask (B, h, w)``.
        """
        projected = self._project(features, depth, depth_valid)
        return self._reconstruct(projected, geom_input, feature_mask)[0]

    def translations(
        self, outputs: Outputs, K: Float[Tensor, "b 3 3"] | None = None
    ) -> Float[Tensor, "b q 3"]:
        """Where the objects are: metres in the camera's frame, NaN where nothing sensible comes out.

        Args:
            outputs: of :meth:`forward`.
            K: pixels of the network's input; that of the outputs if None. The predicted correction is added.
        """
        corrected = correct_intrinsics(outputs["intrinsics"] if K is None else K, outputs["k_delta"])
        center = box_centers_px(outputs["bbox"], outputs["image_size"])
        depth = outputs["log_z"][..., 0].clamp(-_MAX_LOG_Z, _MAX_LOG_Z).exp()
        every = corrected[:, None].expand(*depth.shape, 3, 3)
        return recover_translation(center, outputs["offsets"], depth, every).t

    def _project(
        self, features: Sequence[Tensor], depth: Tensor | None, depth_valid: Tensor | None
    ) -> list[Tensor]:
        layers = self.detector.encoder_input_proj
        projected = [layer(level) for layer, level in zip(layers, features, strict=True)]
        if depth is None:
            return projected
        if self.depth_fusion is None:
            raise ValueError('depth: this model takes none; build it with depth_mode="fuse_mid"')
        return self.depth_fusion(projected, depth, depth_valid)

    def _encode(self, projected: Sequence[Tensor]) -> list[Tensor]:
        # a list of its own, because the encoder writes into it
        return self.detector.encoder(list(projected)).last_hidden_state

    def _reconstruct(
        self, projected: Sequence[Tensor], geom_input: Tensor | None, feature_mask: Tensor | None
    ) -> tuple[Outputs, list[Tensor]]:
        if self.mim is None:
            raise ValueError("return_mim: this model has no masked branch; build it with enable_mim=True")
        coarsest = projected[-1]
        batch, size = coarsest.shape[0], (coarsest.shape[-2], coarsest.shape[-1])
        mask = torch.zeros(batch, *size, dtype=torch.bool, device=coarsest.device)
        if feature_mask is not None:
            mask = resize_mask(feature_mask.to(coarsest.device), batch, size)
        with _kept_statistics(self.detector.encoder):
            neck = self._encode([*projected[:-1], self.mim.hide(coarsest, mask)])
        teacher = None if geom_input is None else self.mim.teach(geom_input.to(coarsest), size)
        return {"recon_feat": self.mim.decoder(neck[-1]), "teacher_feat": teacher, "mask": mask}, neck

    def _decode(
        self, neck: Sequence[Tensor], K: Tensor, image_size: tuple[int, int], targets: Targets | None
    ) -> Outputs:
        hidden, logits, boxes, enc_logits, enc_boxes, dn_meta = decode_queries(self.detector, neck, targets)
        outputs: Outputs = {}
        if dn_meta is not None:
            noisy, own = dn_meta["dn_num_split"]
            dn_logits, logits = logits.split([noisy, own], 2)
            dn_boxes, boxes = boxes.split([noisy, own], 2)
            hidden = hidden[:, :, noisy:]
            outputs = {"dn_outputs": _layers(dn_logits, dn_boxes), "dn_meta": dn_meta}
        layers = _layers(logits, boxes)
        wanted = range(len(layers)) if self.training or targets is not None else [len(layers) - 1]
        for i in wanted:
            layer = layers[i]
            pose = self.pose_heads[i](
                hidden[:, i], layer["bbox"], K, layer["logits"], self.object_sizes, image_size, neck[0]
            )
            layer.update(pose)
        return {
            **layers[-1],
            "k_delta": self.intrinsics_head(hidden[:, -1], image_size),
            "intrinsics": K,
            "image_size": image_size,
            "enc_outputs": {"logits": enc_logits, "bbox": enc_boxes},
            "aux_outputs": [layers[i] for i in wanted if i < len(layers) - 1],
            **outputs,
        }


def _layers(logits: Tensor, boxes: Tensor) -> list[dict[str, Tensor]]:
    return [{"logits": a, "bbox": b} for a, b in zip(logits.unbind(1), boxes.unbind(1), strict=True)]


def _intrinsics_or_default(given: Tensor | None, like: Tensor, image_size: tuple[int, int]) -> Tensor:
    if given is not None:
        if given.shape != (like.shape[0], 3, 3):
            raise ValueError(f"intrinsics: expected ({like.shape[0]}, 3, 3), got {tuple(given.shape)}")
        return given.to(like)
    width, height = image_size
    focal = float(max(image_size))
    K = like.new_tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return K.expand(like.shape[0], 3, 3)


@contextmanager
def _kept_statistics(module: nn.Module) -> Generator[None]:
    """Batch norms in training use the batch but do not remember it: masked features are unusual."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
