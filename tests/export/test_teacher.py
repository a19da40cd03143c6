"""A teacher is the uncut ViT's features after blocks j and k, or an error that says what to do."""

from __future__ import annotations

import pickle
import socket
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fbft_edge.errors import TeacherError
from fbft_export.offline_weights import offline_weights
from fbft_export.teacher import NAMED_TEACHERS, OFFLINE_TEACHER, Teacher, load_teacher

TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher(tile_px=112)


@pytest.fixture(scope="module")
def tiles() -> torch.Tensor:
    return torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model(TINY, num_classes=0).state_dict(), path)
    return path


def tiny(**changed: object) -> Teacher:
    return load_teacher(**{"name": TINY, "tile_px": 96, "blocks": (2, 4), "pretrained": False} | changed)


def uncut(name: str, tile_px: int, state: dict[str, torch.Tensor]) -> timm.models.VisionTransformer:
    model = timm.create_model(name, img_size=tile_px, num_classes=0).eval()
    model.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, model))
    return model


# Features


def test_features_are_those_of_the_uncut_model(teacher: Teacher, tiles: torch.Tensor) -> None:
    model = uncut("vit_small_patch14_dinov2", 112, offline_weights())
    with torch.inference_mode():
        expected = model.forward_intermediates(
            tiles, indices=[5, 8], norm=True, output_fmt="NLC", intermediates_only=True
        )
        torch.testing.assert_close(teacher(tiles), tuple(expected))


def test_the_final_layer_norm_is_applied_to_both_features(teacher: Teacher, tiles: torch.Tensor) -> None:
    model = uncut("vit_small_patch14_dinov2", 112, offline_weights())
    expected = []
    with torch.inference_mode():
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(tiles))))
        for block in model.blocks[:9]:
            tokens = block(tokens)
            expected.append(model.norm(tokens)[:, 1:])
        torch.testing.assert_close(teacher(tiles), (expected[5], expected[8]))


def test_registers_and_cls_are_dropped() -> None:
    teacher = load_teacher("dinov2-small-reg", tile_px=112, pretrained=False)
    with torch.inference_mode():
        assert [f.shape for f in teacher(torch.zeros(1, 3, 112, 112))] == [(1, 64, 384), (1, 64, 384)]


def test_blocks_after_k_are_gone(teacher: Teacher) -> None:
    assert len(teacher.vit.blocks) == 9


def test_patches_come_row_by_row(teacher: Teacher) -> None:
    tiles = torch.zeros(1, 3, 112, 112)
    tiles[..., 14:28, 98:112] = 3
    with torch.inference_mode():
        change = (teacher(tiles)[0] - teacher(torch.zeros_like(tiles))[0]).norm(dim=-1)
    assert int(change.argmax()) == 1 * 8 + 7


def test_a_teacher_is_frozen(teacher: Teacher) -> None:
    assert [name for name, parameter in teacher.named_parameters() if parameter.requires_grad] == []


def test_a_teacher_stays_in_evaluation_mode(teacher: Teacher) -> None:
    torch.nn.Sequential(teacher).train()
    assert not any(module.training for module in teacher.modules())


def test_a_teacher_knows_its_shape(teacher: Teacher) -> None:
    assert (teacher.blocks, teacher.patch_px, teacher.tile_px, teacher.embed_dim) == ((5, 8), 14, 112, 384)


# Identity


def test_the_same_weights_have_the_same_identity(teacher: Teacher) -> None:
    assert load_teacher(tile_px=112).weights_sha256 == teacher.weights_sha256


def test_one_changed_weight_is_another_identity(tiny_weights: Path, tmp_path: Path) -> None:
    state = timm.create_model(TINY, num_classes=0).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    state["blocks.1.mlp.fc1.weight"][0, 0] += 1
    save_file(state, tmp_path / "b.safetensors")
    assert (
        tiny(weights=tmp_path / "a.safetensors").weights_sha256
        != tiny(weights=tmp_path / "b.safetensors").weights_sha256
    )


# Local weights


def test_local_weights_give_the_features_of_the_model_they_came_from(tiny_weights: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(TINY, num_classes=0).eval()
    tiles = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = model.forward_intermediates(
            tiles, indices=[2, 4], norm=True, output_fmt="NLC", intermediates_only=True
        )
        torch.testing.assert_close(tiny(weights=tiny_weights, tile_px=224)(tiles), tuple(expected))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
def test_pickled_weights_are_never_loaded(tmp_path: Path, suffix: str) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / f"weights{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(TeacherError):
        tiny(weights=path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "data", [None, b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"], ids=["missing", "empty", "wild", "no tensors"]
)
def test_weights_that_are_none_are_refused(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(TeacherError, match=r"weights\.safetensors"):
        tiny(weights=path)


def test_weights_of_another_architecture_are_refused(tiny_weights: Path) -> None:
    with pytest.raises(TeacherError, match="does not fit the teacher"):
        load_teacher("vit_small_patch14_dinov2", tile_px=112, blocks=(2, 4), weights=tiny_weights)


def test_weights_of_another_width_are_refused(tiny_weights: Path) -> None:
    with pytest.raises(TeacherError):
        load_teacher("vit_small_patch16_224", tile_px=224, blocks=(2, 4), weights=tiny_weights)


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    state = timm.create_model(TINY, num_classes=0).state_dict()
    del state["norm.weight"]
    save_file(state, tmp_path / "tiny.safetensors")
    with pytest.raises(TeacherError, match=r"1 tensors missing \['norm.weight'\]"):
        tiny(weights=tmp_path / "tiny.safetensors")


# What does not fit


@pytest.mark.parametrize("blocks", [(5, 5), (8, 5), (-1, 3), (3, 12), (3, 99)])
def test_blocks_that_do_not_fit_are_refused(blocks: tuple[int, int]) -> None:
    with pytest.raises(TeacherError, match="blocks 0 to 11"):
        tiny(blocks=blocks)


@pytest.mark.parametrize("tile_px", [113, 10, 1, 0, -14])
def test_a_tile_that_does_not_divide_into_patches_is_refused(tile_px: int) -> None:
    with pytest.raises(TeacherError, match=f"{tile_px} px"):
        load_teacher(OFFLINE_TEACHER, tile_px=tile_px, pretrained=False)


@pytest.mark.parametrize(
    "name", ["", "dinov2-huge", "../vit", "hf_hub:someone/vit", "vit_tiny_patch16_224.no_such_tag"]
)
def test_an_unknown_teacher_is_refused(name: str) -> None:
    with pytest.raises(TeacherError):
        tiny(name=name)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_small_r26_s32_224"])
def test_a_model_without_square_patches_of_the_tile_is_refused(name: str) -> None:
    with pytest.raises(TeacherError):
        tiny(name=name, tile_px=224)


def test_a_timm_vit_needs_blocks_of_its_own() -> None:
    with pytest.raises(TeacherError, match="--blocks"):
        tiny(blocks=None)


@pytest.mark.parametrize("name", NAMED_TEACHERS)
def test_every_named_teacher_can_be_built(name: str) -> None:
    teacher = load_teacher(name, tile_px=56, pretrained=False)
    assert (teacher.name, teacher.blocks) == (name, NAMED_TEACHERS[name].blocks)


def test_an_unreachable_hub_is_said_with_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        socket.create_connection(("huggingface.co", 443), timeout=3).close()
    except OSError:
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the hub's client waits between ten attempts
        with pytest.raises(TeacherError, match=f"--weights FILE.safetensors, or use --teacher {OFFLINE_TEACHER}"):
            load_teacher("dinov2-small-reg", tile_px=112)
    else:
        pytest.skip("the model hub is reachable here")
