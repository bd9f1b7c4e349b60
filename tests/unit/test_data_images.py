"""Folders of images: layouts, modes, sizes, damaged files."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from common.data import SplitFractions, load_dataset
from common.data.image_files import UnreadableImageError, decode_image, read_header, resize_images
from common.exits import InputFileError


def picture(seed, size=(6, 5), channels=3):
    height, width = size
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def folder_of(root, parts=("train", "val", "test"), classes=("cat", "dog"), per_class=6, **kwargs):
    """``root/part/class/NN.png``, all different; without parts ``root/class/NN.png``."""
    seed = 0
    for part in parts or ("",):
        for class_name in classes:
            (root / part / class_name).mkdir(parents=True)
            for number in range(per_class):
                seed += 1
                picture(seed, **kwargs).save(root / part / class_name / f"{number:02d}.png")
    return root


def test_three_parts(tmp_path):
    dataset = load_dataset("image_folder", root=folder_of(tmp_path / "pets"))
    assert dataset.kind == "image" and dataset.name == "pets"
    assert dataset.input_shape == (3, 6, 5) and dataset.class_names == ["cat", "dog"]
    assert dataset.problems == [] and dataset.notices == []
    split = dataset.splits["val"]
    assert split.file_names[:2] == ["val/cat/00.png", "val/cat/01.png"] and split.labels.tolist() == [0] * 6 + [1] * 6
    with Image.open(tmp_path / "pets" / "val" / "dog" / "03.png") as image:
        assert np.array_equal(split.inputs[9].numpy().transpose(1, 2, 0), np.asarray(image))


def test_statistics_are_those_of_the_training_split_alone(tmp_path):
    root = folder_of(tmp_path)
    for path in (tmp_path / "val").rglob("*.png"):
        Image.new("RGB", (5, 6), "white").save(path)
    dataset = load_dataset("image_folder", root=root)
    train = dataset.splits["train"].inputs.double() / 255
    assert np.allclose(dataset.mean, train.mean(dim=(0, 2, 3)), rtol=1e-12)
    assert np.allclose(dataset.std, train.std(dim=(0, 2, 3), correction=0), rtol=1e-9)
    plain = load_dataset("image_folder", root=root, normalize=False)
    assert (plain.mean, plain.std) == ([0.0] * 3, [1.0] * 3)


def test_one_folder_is_split(tmp_path):
    root = folder_of(tmp_path, parts=(), per_class=20)
    dataset = load_dataset("image_folder", root=root, split=SplitFractions(val=0.2, test=0.1))
    counts = {name: split.class_counts(2) for name, split in dataset.splits.items()}
    assert counts == {"train": [14, 14], "val": [4, 4], "test": [2, 2]}
    names = [name for split in dataset.splits.values() for name in split.file_names]
    assert len(names) == len(set(names)) == 40 and "cat/00.png" in names


def test_missing_validation_folder_is_taken_from_training_and_a_missing_test_folder_is_none(tmp_path):
    dataset = load_dataset("image_folder", root=folder_of(tmp_path, parts=("train",), per_class=20))
    assert {name: split.num_samples for name, split in dataset.splits.items()} == {"train": 34, "val": 6}


def test_folder_may_be_called_valid(tmp_path):
    dataset = load_dataset("image_folder", root=folder_of(tmp_path, parts=("train", "valid")))
    assert dataset.splits["val"].file_names[0] == "valid/cat/00.png"


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_streaming_differs_in_nothing_but_where_pixels_are(tmp_path, cache):
    root = folder_of(tmp_path)
    auto, other = load_dataset("image_folder", root=root), load_dataset("image_folder", root=root, cache=cache)
    assert (auto.fingerprint, auto.mean, auto.std) == (other.fingerprint, other.mean, other.std)
    for name, split in auto.splits.items():
        assert torch.equal(split.labels, other.splits[name].labels)
        assert other.splits[name].is_streamed == (cache == "none") and split.file_names == other.splits[name].file_names


def test_memory_budget_decides(tmp_path):
    root = folder_of(tmp_path)
    size_bytes = 36 * 3 * 6 * 5
    fits = load_dataset("image_folder", root=root, memory_budget_bytes=size_bytes)
    assert not fits.splits["train"].is_streamed
    assert load_dataset("image_folder", root=root, memory_budget_bytes=size_bytes - 1).splits["train"].is_streamed


def test_number_of_threads_changes_nothing(tmp_path):
    root = folder_of(tmp_path)
    one, many = (load_dataset("image_folder", root=root, num_workers=count) for count in (1, 8))
    assert one.fingerprint == many.fingerprint and one.mean == many.mean


def test_one_pixel_changes_the_fingerprint(tmp_path):
    root = folder_of(tmp_path)
    before = load_dataset("image_folder", root=root).fingerprint
    path = root / "test" / "dog" / "05.png"
    image = Image.open(path).convert("RGB")
    image.putpixel((0, 0), tuple(255 - value for value in image.getpixel((0, 0))))
    image.save(path)
    assert load_dataset("image_folder", root=root).fingerprint != before


def test_damaged_images_are_named_counted_and_left_out(tmp_path):
    root = folder_of(tmp_path)
    whole = (root / "train" / "cat" / "01.png").read_bytes()
    (root / "train" / "cat" / "01.png").write_bytes(whole[: len(whole) // 2])
    (root / "train" / "cat" / "02.png").write_bytes(b"")
    (root / "train" / "cat" / "03.png").write_text("no picture")
    os.unlink(root / "train" / "dog" / "00.png")
    os.symlink(root / "gone.png", root / "train" / "dog" / "00.png")
    for cache in ("memory", "none"):
        dataset = load_dataset("image_folder", root=root, cache=cache)
        (problem,) = dataset.problems
        assert problem.kind == "unreadable_image" and problem.split == "train" and problem.count == 4
        assert "4 images of 12 cannot be read, left out: train/cat/01.png (" in problem.message
        assert "train/dog/00.png (is missing)" in problem.examples
        assert "train/cat/03.png (is no image of a known format)" in problem.examples
        assert dataset.splits["train"].class_counts(2) == [3, 5]
        assert "train/cat/01.png" not in dataset.splits["train"].file_names


def test_only_the_first_ten_are_named(tmp_path):
    root = folder_of(tmp_path, per_class=20)
    for number in range(12):
        (root / "train" / "cat" / f"{number:02d}.png").write_bytes(b"x")
    (problem,) = load_dataset("image_folder", root=root).problems
    assert problem.count == 12 and len(problem.examples) == 10 and problem.message.endswith("and 2 more")


def test_empty_and_differing_classes(tmp_path):
    root = folder_of(tmp_path)
    (root / "train" / "eel").mkdir()
    folder = root / "val" / "fox"
    folder.mkdir()
    picture(99).save(folder / "a.png")
    dataset = load_dataset("image_folder", root=root)
    assert dataset.class_names == ["cat", "dog", "eel", "fox"]
    found = {(problem.kind, problem.split): problem.examples for problem in dataset.problems}
    assert found == {
        ("empty_class", "train"): ("eel", "fox"),
        ("empty_class", "val"): ("eel",),
        ("empty_class", "test"): ("eel", "fox"),
        ("classes_differ", "val"): ("fox",),
    }


def test_leaked_and_contradicting_images(tmp_path):
    root = folder_of(tmp_path)
    content = (root / "train" / "cat" / "04.png").read_bytes()
    (root / "test" / "cat" / "00.png").write_bytes(content)
    (root / "val" / "dog" / "01.png").write_bytes(content)
    problems = {(problem.kind, problem.split): problem for problem in load_dataset("image_folder", root=root).problems}
    assert problems["leakage", "test"].examples == ("test/cat/00.png = train/cat/04.png",)
    assert problems["leakage", "val"].examples == ("val/dog/01.png = train/cat/04.png",)
    assert problems["contradicting_labels", None].examples == ("train/cat/04.png (cat and dog)",)


def test_hidden_files_are_passed_over_and_others_mentioned(tmp_path):
    root = folder_of(tmp_path)
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / ".DS_Store").write_text("")
    (root / "train" / "cat" / "notes.txt").write_text("")
    dataset = load_dataset("image_folder", root=root)
    assert dataset.class_names == ["cat", "dog"] and dataset.problems == []
    assert dataset.notices == ["not among the image formats, ignored: train/cat/notes.txt"]


def test_majority_decides_between_grey_and_colour(tmp_path):
    root = folder_of(tmp_path, channels=1)
    picture(7).save(root / "train" / "cat" / "00.png")
    dataset = load_dataset("image_folder", root=root)
    assert dataset.input_shape == (1, 6, 5) and "1 image of 12 converted to grey" in dataset.notices[0]


def test_sizes_that_differ_need_an_image_size(tmp_path):
    root = folder_of(tmp_path)
    picture(7, size=(9, 5)).save(root / "val" / "cat" / "03.png")
    with pytest.raises(InputFileError, match=r"train/cat/00.png is 5x6, val/cat/03.png is 5x9; set data.image_size"):
        load_dataset("image_folder", root=root)
    dataset = load_dataset("image_folder", root=root, image_size=[4, 8])
    assert dataset.input_shape == (3, 4, 8) and dataset.resize == (4, 8) and dataset.problems == []


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.write_text(""), "is no folder"),
        (lambda root: root.mkdir(), "holds no images"),
        (lambda root: (root / "train" / "cat").mkdir(parents=True), "holds no images"),
        (lambda root: folder_of(root, parts=("val", "test")), "holds val/ and test/ but no train/"),
        (lambda root: folder_of(root, classes=("cat",)), "only one class, 'cat'"),
    ],
)
def test_what_cannot_be_trained_on(tmp_path, prepare, message):
    root = tmp_path / "data"
    prepare(root)
    with pytest.raises(InputFileError, match=message):
        load_dataset("image_folder", root=root)


def test_nothing_readable_at_all(tmp_path):
    root = folder_of(tmp_path)
    for path in root.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(InputFileError, match=r"none of its 36 images can be read: train/cat/00\.png"):
        load_dataset("image_folder", root=root)
    picture(1).save(root / "val" / "cat" / "00.png")
    with pytest.raises(InputFileError, match="no samples to train on"):
        load_dataset("image_folder", root=root)


def test_orientation_is_applied(tmp_path):
    image = picture(3, size=(6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    assert read_header(tmp_path / "a.png").size == (4, 6)
    decoded = decode_image(tmp_path / "a.png", (3, 4, 6), resize=False)
    assert np.array_equal(decoded.transpose(1, 2, 0), np.rot90(np.asarray(image), k=-1))


def test_sixteen_bit_images_keep_their_upper_half(tmp_path):
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png").is_grey
    assert decode_image(tmp_path / "a.png", (1, 2, 3), resize=False)[0].tolist() == [[0, 0, 1], [128, 255, 255]]


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_becomes_grey_or_colour(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture(3).convert(mode).save(path)
    assert decode_image(path, (3, 6, 5), resize=False).shape == (3, 6, 5)
    assert decode_image(path, (1, 6, 5), resize=False).shape == (1, 6, 5)


def test_arrays_are_resized_as_files_are(tmp_path):
    for channels in (1, 3):
        image = picture(5, size=(9, 7), channels=channels)
        image.save(tmp_path / "a.png")
        from_file = decode_image(tmp_path / "a.png", (channels, 4, 12), resize=True)
        pixels = np.asarray(image).reshape(9, 7, channels).transpose(2, 0, 1)
        assert np.array_equal(resize_images(pixels[None], (4, 12))[0], from_file)


def test_wrong_size_and_huge_images_are_unreadable(tmp_path):
    picture(5).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="is 5x6, not 6x5 pixels"):
        decode_image(tmp_path / "a.png", (3, 5, 6), resize=False)
    Image.new("1", (10_000, 9_000)).save(tmp_path / "huge.png")
    with pytest.raises(UnreadableImageError, match="more than"), pytest.warns(Image.DecompressionBombWarning):
        read_header(tmp_path / "huge.png")
