"""Views of patches: color changes, blur, flip and random resized crop, batched on the device.

Semantics of the published code (OpenCV): brightness × U(.6, 1.4) and contrast about each band's
mean × U(.6, 1.4), together with probability .8; gray (mean over all bands, NDVI too) .2; Gaussian
blur .5, sigma U(.1, 2) pixels, automatic kernel size, border reflected about the edge pixel;
horizontal flip .5; crop of 20 to 100 % of the area with a side ratio of 3/4 to 4/3, resized bilinearly
between pixel centers without antialiasing. Nothing is clipped.

Blur, flip and crop are linear and separable: each sample gets one matrix for its rows and one for
its columns, and a view is two matrix products. Parameters are drawn by counter
(`randomness.uniforms`), so they depend on seed, epoch, sample slot and view only; nothing here waits
for the device.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.data import resampling_matrix, send
from pretrain.randomness import STREAM_VIEWS, uniforms

COLOR_PROBABILITY = 0.8
COLOR_RANGE = (0.6, 1.4)
GRAY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
SIGMA_RANGE = (0.1, 2.0)
FLIP_PROBABILITY = 0.5
AREA_RANGE = (0.2, 1.0)
RATIO_RANGE = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10

_BLUR_RADIUS = 8
"""Largest radius of OpenCV's automatic kernel for floats at the largest sigma."""
_N_DRAWS = 7 + 3 * CROP_ATTEMPTS + 2


@dataclass(frozen=True)
class View:
    """How one network input is made of a sample."""

    season: int
    """Which of the sample's drawn seasons."""
    augment: Literal["none", "before_crop", "after_crop"]
    """Where color changes, blur and flip stand relative to the random crop; none: crop only."""


@dataclass(frozen=True)
class Parameters:
    """What is done to each sample of a batch, arrays (N,)."""

    brightness: np.ndarray
    contrast: np.ndarray
    is_gray: np.ndarray
    sigma: np.ndarray
    """Pixels; 0: no blur."""
    is_flipped: np.ndarray
    crop: np.ndarray
    """int (N, 4): top, left, height, width in pixels."""


def _between(draws: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return limits[0] + draws * (limits[1] - limits[0])


def draw_parameters(
    view: int, *, seed: int, epoch: int, slots: np.ndarray, height: int, width: int, augment: bool
) -> Parameters:
    """Draw the parameters of one view of each sample.

    Parameters
    ----------
    view : number of the view in its objective
    height, width : of the patches, pixels
    augment : false: crop only, everything else neutral
    """
    u = uniforms(seed, epoch=epoch, stream=STREAM_VIEWS + view, slots=slots, n=_N_DRAWS)
    colored = augment & (u[:, 0] < COLOR_PROBABILITY)
    return Parameters(
        brightness=np.where(colored, _between(u[:, 1], COLOR_RANGE), 1.0),
        contrast=np.where(colored, _between(u[:, 2], COLOR_RANGE), 1.0),
        is_gray=augment & (u[:, 3] < GRAY_PROBABILITY),
        sigma=np.where(augment & (u[:, 4] < BLUR_PROBABILITY), _between(u[:, 5], SIGMA_RANGE), 0.0),
        is_flipped=augment & (u[:, 6] < FLIP_PROBABILITY),
        crop=draw_crops(u[:, 7:], height=height, width=width),
    )


def draw_crops(u: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Choose crops as the published RandomResizedCrop.

    Up to ten attempts at an area and a ratio (width / height, the two swapped half of the time); the
    first that fits is placed uniformly. Without any, the largest centered square.

    Parameters
    ----------
    u : uniform draws (N, 3 · CROP_ATTEMPTS + 2)

    Returns
    -------
    int64 (N, 4): top, left, height, width
    """
    attempts = u[:, : 3 * CROP_ATTEMPTS].reshape(len(u), CROP_ATTEMPTS, 3)
    area = _between(attempts[..., 0], AREA_RANGE) * height * width
    ratio = _between(attempts[..., 1], RATIO_RANGE)
    wide, high = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    swap = attempts[..., 2] < 0.5
    wide, high = np.where(swap, high, wide).astype(int), np.where(swap, wide, high).astype(int)
    fits = (wide <= width) & (high <= height)
    first = np.argmax(fits, axis=1)[:, None]
    wide = np.take_along_axis(wide, first, axis=1)[:, 0]
    high = np.take_along_axis(high, first, axis=1)[:, 0]
    top = np.floor(u[:, -2] * (height - high + 1)).astype(int)
    left = np.floor(u[:, -1] * (width - wide + 1)).astype(int)
    side = min(height, width)
    square = np.array([(height - side) // 2, (width - side) // 2, side, side])
    return np.where(fits.any(axis=1)[:, None], np.stack([top, left, high, wide], axis=1), square)


def change_colors(images: Tensor, parameters: Parameters, mean: Tensor) -> Tensor:
    """Apply brightness, contrast and gray to (N, C, H, W).

    Parameters
    ----------
    mean : (N, C, 1, 1), what contrast leaves alone
    """
    scale = send(parameters.brightness * parameters.contrast, like=images).view(-1, 1, 1, 1)
    brightness = send(parameters.brightness, like=images).view(-1, 1, 1, 1)
    images = torch.addcmul(mean * (brightness - scale), images, scale)
    gray = send(parameters.is_gray, device=images.device).view(-1, 1, 1, 1)
    return torch.where(gray, images.mean(dim=1, keepdim=True), images)


@lru_cache(maxsize=8)
def _reflected_shifts(n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Give (taps, n · n): one-hot matrices that shift by each tap, border reflected about the edge pixel."""
    source = np.pad(np.arange(n), _BLUR_RADIUS, mode="reflect")
    taps = 2 * _BLUR_RADIUS + 1
    shifts = np.zeros((taps, n, n))
    for tap in range(taps):
        shifts[tap, np.arange(n), source[tap : tap + n]] = 1
    return torch.from_numpy(shifts).to(device, dtype).view(taps, n * n)


def blur_matrix(sigma: np.ndarray, n: int, *, like: Tensor) -> Tensor:
    """Build matrices (N, n, n) of Gaussian blurs as ``cv2.GaussianBlur(image, (0, 0), sigma)``.

    The automatic kernel of OpenCV for floats has ``round(8 sigma + 1) | 1`` taps; sigma 0 is no blur.
    Device and type are those of the tensor `like`.
    """
    taps = np.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    radius = (np.rint(8 * sigma + 1).astype(int) | 1) // 2
    safe = np.maximum(sigma, 1e-6)[:, None]
    kernel = np.exp(-(taps**2) / (2 * safe**2)) * (np.abs(taps) <= radius[:, None])
    kernel = np.where(sigma[:, None] > 0, kernel, taps == 0)
    kernel = send(kernel / kernel.sum(axis=1, keepdims=True), like=like)
    return (kernel @ _reflected_shifts(n, like.device, like.dtype)).view(-1, n, n)


def crop_matrix(
    first: np.ndarray, length: np.ndarray, n: int, *, n_out: int, is_flipped: np.ndarray, like: Tensor
) -> Tensor:
    """Build matrices (N, n_out, n) that cut `length` pixels from `first` on and resize them bilinearly.

    Source positions are held inside the crop, as when it is cut out first. With `is_flipped` the
    crop is taken from the mirrored line.
    """
    centers = (np.arange(n_out) + 0.5) * (length[:, None] / n_out) - 0.5
    position = first[:, None] + np.clip(centers, 0, length[:, None] - 1)
    position = np.where(is_flipped[:, None], n - 1 - position, position)
    return resampling_matrix(send(position, like=like), n)


def apply_matrices(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply a matrix per sample to the rows (N, h, H) and columns (N, w, W) of images (N, C, H, W)."""
    n, c, height, width = images.shape
    across = torch.bmm(images.reshape(n, c * height, width), columns.transpose(1, 2))
    across = across.view(n, c, height, -1).transpose(1, 2).reshape(n, height, -1)
    down = torch.bmm(rows, across)
    return down.view(n, rows.shape[1], c, -1).transpose(1, 2).contiguous()


def view_matrices(
    parameters: Parameters, height: int, width: int, *, augment: str, crop_px: int, like: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Build what makes a view of the rows and the columns of each image.

    Returns
    -------
    rows (N, crop_px, height), columns (N, crop_px, width) : crop, blur and flip
    mean_rows (N, 1, height), mean_columns (N, 1, width) : mean over what contrast takes its mean of
    """
    n = len(parameters.crop)
    top, left, high, wide = parameters.crop.T
    never = np.zeros(n, bool)
    mirrored = parameters.is_flipped if augment == "before_crop" else never
    rows = crop_matrix(top, high, height, n_out=crop_px, is_flipped=never, like=like)
    columns = crop_matrix(left, wide, width, n_out=crop_px, is_flipped=mirrored, like=like)
    mean_rows, mean_columns = rows.mean(dim=1, keepdim=True), columns.mean(dim=1, keepdim=True)
    if augment == "before_crop":
        mean_rows, mean_columns = (
            like.new_full((n, 1, height), 1 / height),
            like.new_full((n, 1, width), 1 / width),
        )
        rows = rows @ blur_matrix(parameters.sigma, height, like=like)
        columns = columns @ blur_matrix(parameters.sigma, width, like=like)
    elif augment == "after_crop":
        blur = blur_matrix(parameters.sigma, crop_px, like=like)
        flip = send(parameters.is_flipped, device=like.device).view(-1, 1, 1)
        rows, columns = blur @ rows, torch.where(flip, blur.flip(1), blur) @ columns
    return rows, columns, mean_rows, mean_columns


def make_view(images: Tensor, parameters: Parameters, *, augment: str, crop_px: int) -> Tensor:
    """Make one view of each image.

    Colors change pixel by pixel and the weights of a matrix row sum to 1, so colors, blur and crop may be
    done in any order: first the matrices, which leave fewer pixels.

    Parameters
    ----------
    images : (N, C, H, W)
    augment : see `View`
    crop_px : side of the view

    Returns
    -------
    (N, C, crop_px, crop_px)
    """
    height, width = images.shape[-2:]
    rows, columns, mean_rows, mean_columns = view_matrices(
        parameters, height, width, augment=augment, crop_px=crop_px, like=images
    )
    made = apply_matrices(images, rows, columns)
    if augment == "none":
        return made
    return change_colors(made, parameters, apply_matrices(images, mean_rows, mean_columns))


def make_mask(valid: Tensor, parameters: Parameters, *, augment: str, crop_px: int) -> Tensor:
    """Tell which pixels of a view come mostly, by weight, from pixels with data.

    Parameters
    ----------
    valid : bool (N, H, W)

    Returns
    -------
    bool (N, crop_px, crop_px)
    """
    weights = valid.to(torch.float32).unsqueeze(1)
    height, width = valid.shape[-2:]
    rows, columns, *_ = view_matrices(
        parameters, height, width, augment=augment, crop_px=crop_px, like=weights
    )
    return apply_matrices(weights, rows, columns)[:, 0] > 0.5


def draw_views(
    views: tuple[View, ...], *, seed: int, epoch: int, slots: np.ndarray, height: int, width: int
) -> list[Parameters]:
    """Draw the parameters of all views of a batch."""
    drawn = {"seed": seed, "epoch": epoch, "slots": slots, "height": height, "width": width}
    return [draw_parameters(i, augment=view.augment != "none", **drawn) for i, view in enumerate(views)]


def make_views(
    images: Tensor, views: tuple[View, ...], *, seed: int, epoch: int, slots: np.ndarray, crop_px: int
) -> tuple[Tensor, ...]:
    """Make all views of a batch of (N, season, C, H, W) images."""
    height, width = images.shape[-2:]
    drawn = draw_views(views, seed=seed, epoch=epoch, slots=slots, height=height, width=width)
    return tuple(
        make_view(images[:, view.season], parameters, augment=view.augment, crop_px=crop_px)
        for view, parameters in zip(views, drawn, strict=True)
    )


def make_masks(
    valid: Tensor, views: tuple[View, ...], *, seed: int, epoch: int, slots: np.ndarray, crop_px: int
) -> tuple[Tensor, ...]:
    """Make the masks of the views that `make_views` makes, of (N, season, H, W) valid pixels."""
    height, width = valid.shape[-2:]
    drawn = draw_views(views, seed=seed, epoch=epoch, slots=slots, height=height, width=width)
    return tuple(
        make_mask(valid[:, view.season], parameters, augment=view.augment, crop_px=crop_px)
        for view, parameters in zip(views, drawn, strict=True)
    )
