"""The detector against transformers' own, and weights of each published layout against their source."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from sightline.rtdetr_pose.detection_weights import load_detection_weights
from sightline.rtdetr_pose.detector import PRESETS, build_detector, detector_config
from sightline.rtdetr_pose.model import RTDETRPose
from tests.rtdetr_pose.official_names import official_state

SMALL = {"backbone_config": {"hidden_sizes": [16, 16, 24, 32], "embedding_size": 16}, "num_denoising": 20}


def small_model(num_classes: int = 4, **options) -> RTDETRPose:
    return RTDETRPose(num_classes, 32, 12, backbone="tiny", detector=SMALL, **options)


@pytest.fixture(scope="module")
def theirs():
    """A detector of transformers, its weights drawn so that no two queries nor classes are alike."""
    from transformers import RTDetrV2ForObjectDetection

    torch.manual_seed(0)
    config = detector_config("tiny", num_classes=4, hidden_dim=32, num_queries=12, overrides=SMALL)
    theirs = RTDetrV2ForObjectDetection(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for name, buffer in theirs.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return theirs


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    theirs.save_pretrained(path)
    return path


def assert_same_detections(model, theirs, *, exactly: bool = True) -> None:
    torch.manual_seed(1)
    picture = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        ours, expected = model.eval()(picture), theirs(picture)
    rtol, atol = (0.0, 0.0) if exactly else (1e-4, 1e-5)
    torch.testing.assert_close(ours["logits"], expected.logits, rtol=rtol, atol=atol)
    torch.testing.assert_close(ours["bbox"], expected.pred_boxes, rtol=rtol, atol=atol)


def test_saved_weights_load_whole_and_give_identical_boxes(theirs, folder):
    model = small_model()
    report = load_detection_weights(model, folder)
    assert report.complete
    assert report.layout == "transformers"
    assert report.reinitialised == ()
    assert set(report.matched) | set(report.constant) == set(model.detector.state_dict())
    assert_same_detections(model, theirs)


def test_training_is_that_of_transformers(theirs):
    """The same noisy copies, the same predictions of every layer, the same statistics of batch norms."""
    labels = [torch.tensor([1, 3]), torch.zeros(0, dtype=torch.long)]
    boxes = [torch.rand(2, 4, generator=torch.Generator().manual_seed(2)) * 0.2 + 0.3, torch.zeros(0, 4)]
    model, reference = small_model().train(), copy.deepcopy(theirs).train()
    load_detection_weights(model, theirs.state_dict())
    picture = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(4)
    ours = model(picture, targets=[{"labels": n, "boxes": b} for n, b in zip(labels, boxes, strict=True)])
    torch.manual_seed(4)
    named = [{"class_labels": n, "boxes": b} for n, b in zip(labels, boxes, strict=True)]
    expected = reference(picture, labels=named)
    noisy = expected.denoising_meta_values["dn_num_split"][0]
    assert ours["dn_meta"]["dn_num_split"] == [noisy, 12]
    every = [*ours["aux_outputs"], ours]
    assert len(every) == len(ours["dn_outputs"]) == 3
    for i, (layer, copies) in enumerate(zip(every, ours["dn_outputs"], strict=True)):
        for name, whole in (
            ("logits", expected.intermediate_logits),
            ("bbox", expected.intermediate_reference_points),
        ):
            assert torch.equal(torch.cat([copies[name], layer[name]], 1), whole[:, i])
    assert torch.equal(ours["enc_outputs"]["logits"], expected.enc_topk_logits)
    assert torch.equal(ours["enc_outputs"]["bbox"], expected.enc_topk_bboxes)
    for name, buffer in reference.model.named_buffers():
        assert torch.equal(buffer, model.detector.get_buffer(name)), name


def test_denoising_groups():
    """Seven objects: 14 groups of 14 queries; other queries do not see them, nor one group another."""
    model = small_model().train()
    model.detector.config.num_denoising = 100
    targets = [{"labels": torch.arange(7) % 4, "boxes": torch.full((7, 4), 0.3)}]
    masks = []
    model.detector.decoder.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs["encoder_attention_mask"]), with_kwargs=True
    )
    meta = model(torch.rand(1, 3, 64, 64), targets=targets)["dn_meta"]
    assert meta["dn_num_group"] == 14
    assert meta["dn_num_split"] == [196, 12]
    seen = masks[0] == 0
    assert not seen[196:, :196].any()
    assert seen[:, 196:].all()
    groups = torch.arange(196) // 14
    assert torch.equal(seen[:196, :196], groups[:, None] == groups)


def test_pictures_without_objects_have_no_noisy_copies():
    outputs = small_model().train()(
        torch.rand(2, 3, 64, 64),
        targets=[{"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}] * 2,
    )
    assert "dn_outputs" not in outputs
    assert len(outputs["aux_outputs"]) == 2


def test_file_names_and_heads_held_twice(theirs, folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    assert any(".fc1." in name for name in tensors), "the files' names differ from the modules'"
    twice = {name.removeprefix("model.decoder."): t for name, t in tensors.items() if "_embed." in name}
    twice = {name: t.clone() for name, t in twice.items() if name.startswith(("class_", "bbox_"))}
    save_file(tensors | twice, tmp_path / "twice.safetensors")
    model = small_model()
    report = load_detection_weights(model, tmp_path / "twice.safetensors")
    assert len(report.ignored) == len(twice)
    assert_same_detections(model, theirs)
    twice["class_embed.0.bias"] += 1
    with pytest.raises(ValueError, match=r"class_embed\.0\.bias.*differ"):
        load_detection_weights(model, tensors | twice)


def test_module_names_of_transformers(theirs):
    model = small_model()
    assert load_detection_weights(model, theirs.state_dict()).layout == "transformers"
    assert_same_detections(model, theirs)


def test_version_1_of_transformers_computes_the_same(theirs):
    from transformers import RTDetrConfig, RTDetrForObjectDetection

    config, known = theirs.config.to_dict(), RTDetrConfig().to_dict()
    skipped = ("backbone_config", "model_type", "architectures", "transformers_version")
    shared = {key: config[key] for key in known if key in config and key not in skipped}
    v1 = RTDetrForObjectDetection(
        RTDetrConfig(backbone_config=theirs.config.backbone_config, **shared)
    ).eval()
    assert not v1.load_state_dict(theirs.state_dict(), strict=False).missing_keys
    model = small_model()
    report = load_detection_weights(model, v1.state_dict())
    assert all(name.endswith("n_points_scale") for name in report.constant)
    assert report.constant
    assert_same_detections(model, v1, exactly=False)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("wrap", [lambda s: {"ema": {"module": s}, "last_epoch": 3}, lambda s: {"model": s}])
def test_official_checkpoints(theirs, tmp_path, version, wrap):
    detector = {k.removeprefix("model."): v for k, v in theirs.state_dict().items() if k.startswith("model.")}
    official = official_state(detector, version)
    torch.save(wrap(official), tmp_path / "official.pth")
    model = small_model()
    report = load_detection_weights(model, tmp_path / "official.pth")
    assert report.layout == "official"
    assert {"decoder.anchors", "decoder.valid_mask", "encoder.pos_embed2"} <= set(report.ignored)
    assert_same_detections(model, theirs)


def test_bottlenecks_of_official_checkpoints():
    overrides = SMALL | {"backbone_config": SMALL["backbone_config"] | {"layer_type": "bottleneck"}}
    config = detector_config("tiny", num_classes=4, hidden_dim=32, overrides=overrides)
    one, other = build_detector(config), build_detector(config)
    load_detection_weights(other, official_state(one.state_dict(), 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_only_the_heads_of_classes_are_drawn_anew(theirs, folder):
    model = small_model(num_classes=7)
    before = copy.deepcopy(model.detector.state_dict())
    report = load_detection_weights(model, folder)
    heads = {"denoising_class_embed.weight", "enc_score_head.weight", "enc_score_head.bias"}
    heads |= {f"decoder.class_embed.{i}.{end}" for i in range(3) for end in ("weight", "bias")}
    assert set(report.reinitialised) == heads
    assert "drawn anew: denoising_class_embed.weight" in str(report)
    after, published = model.detector.state_dict(), theirs.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in heads)
    assert all(torch.equal(after[name], published[name]) for name in report.matched)


def test_same_number_of_other_classes(folder):
    assert len(load_detection_weights(small_model(), folder, keep_classes=False).reinitialised) == 9


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("model.enc_output.0.weight"), r"missing: enc_output\.0\.weight"),
        (lambda s: s.update({"model.neck.weight": torch.ones(1)}), r"unexpected: model\.neck\.weight"),
        (lambda s: s.update({"model.enc_output.0.bias": torch.ones(9)}), r"enc_output\.0\.bias \(\[9\] in"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(theirs, spoil, message):
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    state = dict(theirs.state_dict())
    spoil(state)
    with pytest.raises(ValueError, match=message):
        load_detection_weights(model, state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_files_that_are_no_weights(tmp_path, capsys):
    model = small_model()
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="more than tensors"):
        load_detection_weights(model, tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        load_detection_weights(model, tmp_path)
    for missing in ("gone.pth", "gone.safetensors", "gone"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            load_detection_weights(model, tmp_path / missing)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="expected tensors by name"):
        load_detection_weights(model, tmp_path / "list.pth")


# lyuwenyu/RT-DETR's own modules, counted with the affine parameters of frozen batch norms
_MILLIONS = {"r18": 20.184, "r34": 31.442, "r50m": 36.647, "r50": 42.945, "r101": 76.662}


@pytest.mark.parametrize("backbone", _MILLIONS)
def test_sizes_of_the_published_models(backbone):
    with torch.device("meta"):
        from transformers import RTDetrV2ForObjectDetection

        config = detector_config(backbone, hidden_dim=256)
        config.freeze_backbone_batch_norms = False
        detector = RTDetrV2ForObjectDetection(config).model
    assert sum(p.numel() for p in detector.parameters()) / 1e6 == pytest.approx(_MILLIONS[backbone], abs=6e-4)


def test_tiny_is_below_two_million_parameters():
    model = RTDETRPose(5, PRESETS["tiny"].hidden_dim, 100, True, backbone="tiny", use_uncertainty=True)
    assert sum(p.numel() for p in model.parameters()) < 2e6


def test_a_new_detector_starts_as_its_authors_start_it():
    torch.manual_seed(0)
    detector = build_detector(detector_config("tiny", num_classes=4, hidden_dim=32, overrides=SMALL))
    norms = [m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(bool((norm.weight == 1).all()) for norm in norms)
    for head in (detector.enc_score_head, *detector.decoder.class_embed):
        assert head.bias[0].item() == pytest.approx(-4.59512, abs=1e-5)
    assert len({id(head.weight) for head in detector.decoder.class_embed}) == 3


def test_predicted_boxes_are_the_anchors_at_first():
    torch.manual_seed(0)
    model = small_model().eval()
    with torch.no_grad():
        outputs = model(torch.rand(1, 3, 64, 96))
    sizes = torch.tensor([(96 / s, 64 / s) for s in (8, 16, 32)])
    cells = outputs["bbox"][0, :, :2] * sizes[:, None]
    level = (outputs["bbox"][0, :, 2] / 0.05).log2().round().long()
    assert torch.equal(outputs["bbox"][0, :, 2:], outputs["bbox"][0, :, 2:3].expand(-1, 2))
    torch.testing.assert_close(outputs["bbox"][0, :, 2], 0.05 * 2.0**level)
    within = cells[level, torch.arange(len(level))] - 0.5
    torch.testing.assert_close(within, within.round(), atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs["enc_outputs"]["bbox"], outputs["bbox"])


def test_anchors_at_640():
    detector = build_detector(detector_config("tiny", overrides=SMALL, hidden_dim=32))
    anchors, valid = detector.generate_anchors(((80, 80), (40, 40), (20, 20)))
    assert (int(valid.sum()), valid.shape[1]) == (8084, 8400)
    starts = [(0, 80 * 40 + 40), (6400, 40 * 20 + 20), (8000, 20 * 10 + 10)]
    logits = [anchors[0, start + i, 2].item() for start, i in starts]
    assert logits == pytest.approx([-2.9444, -2.1972, -1.3863], abs=1e-4)


def test_inverse_sigmoid():
    from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import inverse_sigmoid

    assert inverse_sigmoid(torch.tensor(0.9)).item() == pytest.approx(2.1972, abs=1e-4)
    assert inverse_sigmoid(torch.tensor(0.0)).item() == pytest.approx(math.log(1e-5 / 1), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "r19"}, "expected one of tiny, r18"),
        ({"detector": {"num_querys": 3}}, "no field num_querys"),
        ({"detector": {"backbone_config": {"depth": 3}}}, "no field depth"),
        ({"detector": {"num_feature_levels": 4}}, "expected 3 levels"),
        ({"depth_mode": "fuse"}, "expected one of none, fuse_mid"),
        ({"enable_mim": True, "mim_target": "pixels"}, "expected one of teacher, cells"),
        ({"enable_mim": True, "mim_geom_channels": 5}, "expected 2"),
    ],
)
def test_models_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        RTDETRPose(4, 32, 10, **({"backbone": "tiny"} | arguments))
