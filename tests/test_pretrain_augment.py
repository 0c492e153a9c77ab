"""Views equal slow, obvious versions of the operations that the published code takes from OpenCV."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pretrain import augment
from pretrain.augment import View, draw_crops, draw_parameters, draw_views, make_masks, make_views
from pretrain.randomness import uniforms

SIZE = 24


def slow_blur(image, sigma):
    """cv2.GaussianBlur(image, (0, 0), sigma) of a float image (H, W), BORDER_REFLECT_101."""
    n_taps = round(sigma * 4 * 2 + 1) | 1
    radius = n_taps // 2
    kernel = [np.exp(-(k**2) / (2 * sigma**2)) for k in range(-radius, radius + 1)]
    kernel = np.array(kernel) / sum(kernel)

    def reflect(i, n):
        while not 0 <= i < n:
            i = -i if i < 0 else 2 * (n - 1) - i
        return i

    for axis in range(2):
        n = image.shape[axis]
        lines = np.moveaxis(image, axis, 0)
        blurred = np.zeros_like(lines)
        for i in range(n):
            for k in range(-radius, radius + 1):
                blurred[i] += kernel[k + radius] * lines[reflect(i + k, n)]
        image = np.moveaxis(blurred, 0, axis)
    return image


def slow_resize(image, n_out):
    """cv2.resize(image, (n_out, n_out), interpolation=INTER_LINEAR) of (H, W)."""
    for axis in range(2):
        lines = np.moveaxis(image, axis, 0)
        n = len(lines)
        out = np.zeros((n_out, *lines.shape[1:]))
        for i in range(n_out):
            position = min(max((i + 0.5) * n / n_out - 0.5, 0), n - 1)
            low = int(position)
            high = min(low + 1, n - 1)
            out[i] = lines[low] * (1 - (position - low)) + lines[high] * (position - low)
        image = np.moveaxis(out, 0, axis)
    return image


def slow_color_blur_flip(image, p, i):
    """Augment (C, H, W) by the parameters of sample `i`."""
    image = image * p.brightness[i]
    mean = image.mean(axis=(1, 2), keepdims=True)
    image = (image - mean) * p.contrast[i] + mean
    if p.is_gray[i]:
        image = np.repeat(image.mean(axis=0, keepdims=True), len(image), axis=0)
    if p.sigma[i] > 0:
        image = np.stack([slow_blur(band, p.sigma[i]) for band in image])
    return image[..., ::-1] if p.is_flipped[i] else image


def slow_crop(image, p, i, n_out):
    top, left, high, wide = p.crop[i]
    return np.stack([slow_resize(band[top : top + high, left : left + wide], n_out) for band in image])


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(0).uniform(0.5, 40, (12, 2, 3, SIZE, SIZE))).float()


def test_views_equal_the_slow_ones(images):
    views = (View(0, "none"), View(1, "before_crop"), View(0, "after_crop"))
    slots = np.arange(100, 112)
    made = make_views(images, views, seed=5, epoch=2, slots=slots, crop_px=20)
    seen = {"gray": 0, "blur": 0, "flip": 0}
    for number, view in enumerate(views):
        p = draw_parameters(
            number, seed=5, epoch=2, slots=slots, height=SIZE, width=SIZE, augment=view.augment != "none"
        )
        seen["gray"] += p.is_gray.sum()
        seen["blur"] += (p.sigma > 0).sum()
        seen["flip"] += p.is_flipped.sum()
        for i in range(12):
            expected = images[i, view.season].double().numpy()
            if view.augment == "before_crop":
                expected = slow_color_blur_flip(expected, p, i)
            expected = slow_crop(expected, p, i, 20)
            if view.augment == "after_crop":
                expected = slow_color_blur_flip(expected, p, i)
            # float32 against float64 over values up to 40
            np.testing.assert_allclose(made[number][i].numpy(), expected, rtol=1e-4, atol=1e-4)
    assert min(seen.values()) > 0


def test_the_slow_operations_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(2).uniform(0.5, 40, (SIZE, SIZE)).astype(np.float32)
    for sigma in (0.1, 0.33, 0.8, 1.27, 2.0):
        np.testing.assert_allclose(slow_blur(image, sigma), cv2.GaussianBlur(image, (0, 0), sigma), rtol=1e-4)
    for part in (image, image[3:15, 2:19]):
        expected = cv2.resize(part, (20, 20), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(slow_resize(part, 20), expected, rtol=1e-4)


def test_masks_follow_their_views(images):
    views = (View(0, "none"), View(1, "before_crop"), View(0, "after_crop"))
    valid = torch.from_numpy(np.random.default_rng(1).random((12, 2, SIZE, SIZE)) > 0.3)
    valid[:, :, :6] = False
    draw = {"seed": 5, "epoch": 2, "slots": np.arange(100, 112)}
    masks = make_masks(valid, views, crop_px=20, **draw)
    for number, (view, p) in enumerate(
        zip(views, draw_views(views, height=SIZE, width=SIZE, **draw), strict=True)
    ):
        plain = replace(p, brightness=np.ones(12), contrast=np.ones(12), is_gray=np.zeros(12, bool))
        for i in range(12):
            share = valid[i, view.season].double().numpy()[None]
            if view.augment == "before_crop":
                share = slow_color_blur_flip(share, plain, i)
            share = slow_crop(share, plain, i, 20)
            if view.augment == "after_crop":
                share = slow_color_blur_flip(share, plain, i)
            clear = np.abs(share[0] - 0.5) > 1e-5  # float32 against float64
            assert np.array_equal(masks[number][i].numpy()[clear], (share[0] > 0.5)[clear])
            assert clear.mean() > 0.1


def test_a_sample_does_not_depend_on_the_others(images):
    views = (View(0, "before_crop"), View(1, "after_crop"))
    whole = make_views(images, views, seed=1, epoch=0, slots=np.arange(12), crop_px=16)
    half = make_views(images[6:], views, seed=1, epoch=0, slots=np.arange(6, 12), crop_px=16)
    for a, b in zip(whole, half, strict=True):
        torch.testing.assert_close(a[6:], b, rtol=1e-6, atol=1e-5)


def test_parameters_have_the_published_frequencies():
    p = draw_parameters(0, seed=0, epoch=0, slots=np.arange(20_000), height=64, width=64, augment=True)
    shares = [(p.brightness != 1).mean(), p.is_gray.mean(), (p.sigma > 0).mean(), p.is_flipped.mean()]
    assert shares == pytest.approx([0.8, 0.2, 0.5, 0.5], abs=0.015)  # four standard deviations
    for values, low, high in (
        (p.brightness, 0.6, 1.4),
        (p.contrast, 0.6, 1.4),
        (p.sigma[p.sigma > 0], 0.1, 2),
    ):
        assert low <= values.min() and values.max() <= high
    neutral = draw_parameters(0, seed=0, epoch=0, slots=np.arange(9), height=64, width=64, augment=False)
    assert (neutral.brightness == 1).all() and not neutral.is_flipped.any() and not neutral.sigma.any()


def test_crops_lie_inside_and_cover_the_published_range():
    n = 5000
    u = uniforms(0, epoch=0, stream=99, slots=np.arange(n), n=3 * augment.CROP_ATTEMPTS + 2)
    top, left, high, wide = draw_crops(u, height=64, width=64).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + high <= 64).all() and (left + wide <= 64).all()
    share = high * wide / 64**2
    assert share.min() > 0.18 and share.max() <= 1
    ratio = wide / high
    assert ratio.min() > 0.7 and ratio.max() < 1.43  # rounded to whole pixels
    assert (ratio > 1).mean() == pytest.approx((ratio < 1).mean(), abs=0.04)


def test_a_patch_too_flat_for_any_crop_gives_the_centered_square():
    u = np.full((1, 3 * augment.CROP_ATTEMPTS + 2), 0.999)
    assert draw_crops(u, height=8, width=100).tolist() == [[0, 46, 8, 8]]
