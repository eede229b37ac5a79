"""Batch normalisation whose statistics are those of one task, though many tasks go through the network in one pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kshot.backbones.task_batch import TaskBatch, current_task_batch

_batch_norm = torch.ops.aten.native_batch_norm
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward


class KeepsTasksApart:
    """Marks the layers that normalise by batch statistics and know where a task ends."""


class BatchNorm2d(nn.BatchNorm2d, KeepsTasksApart):
    """`torch.nn.BatchNorm2d` that keeps tasks apart within ``batch_of_tasks(B)``.

    In training, each of the B tasks is normalised by its own statistics, as if it went through the network alone
    (W21 trains so). Outside the context, with B = 1, or in evaluation this is torch's own batch_norm. All modes have
    exact derivatives of the first and second order; torch's own batch_norm has not under `torch.func`.

    Running statistics move once per pass, by `momentum`, towards the MEAN over the B tasks of their means and unbiased
    variances. The release of W21 moves them once per task; then they depend on the order of the tasks, and processes
    that share a batch cannot agree with a single process. With ours they do, by averaging buffers weighted by tasks.

    Within ``batch_of_tasks(B, joint=True)`` the statistics are those of all images of all tasks in all processes.

    Within ``batch_of_tasks(B, own_statistics=True)`` each task is normalised by its own statistics in evaluation, too,
    and the running statistics stay as they are: the mode of learners that adapt weights (Finn et al. 2017).

    The parameters are those of `torch.nn.BatchNorm2d`.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (B*M, C, H, W) over M, H and W for each task."""
        tasks = current_task_batch()
        if tasks.own_statistics:
            return self._untracked(images, tasks)
        if not self.training:
            return super().forward(images)
        if tasks.joint:
            return self._joint(images) if distributed.is_initialized() else super().forward(images)
        return super().forward(images) if tasks.count == 1 else self._per_task(images, tasks.count)

    def _per_task(self, images: Tensor, count: int) -> Tensor:
        normalised, mean, variance = self._normalised(images, count)
        self._track(mean.mean(0), variance.mean(0))
        return normalised

    def _untracked(self, images: Tensor, tasks: TaskBatch) -> Tensor:
        if tasks.traced:  # neither torch's own kernels nor functions of ours can be traced with right derivatives
            return _normalise_batched(images, self.weight, self.bias, self.eps, tasks.count)[0]
        if tasks.count == 1 and self.affine:
            return _NormaliseTwiceDifferentiable.apply(images, self.weight, self.bias, self.eps)
        return self._normalised(images, tasks.count)[0]

    def _normalised(self, images: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        values = images.numel() // (count * self.num_features)
        if len(images) % count or values < 2:
            raise ValueError(
                f"{tuple(images.shape)} is not {count} tasks of equal size with at least 2 values per channel; "
                "check the count given to batch_of_tasks and the number of images per task"
            )
        if images.device.type == "cpu" and not torch.compiler.is_compiling():
            return _NormaliseSlices.apply(images, self.weight, self.bias, self.eps, count)
        return _normalise_batched(images, self.weight, self.bias, self.eps, count)

    def _joint(self, images: Tensor) -> Tensor:
        """Statistics over all processes, in two rounds since a sum of squares less a squared sum would cancel."""
        wide = images.to(torch.promote_types(images.dtype, torch.float32))
        sums = torch.cat([wide.sum((0, 2, 3)), wide.new_tensor([images.numel() / self.num_features])])
        *_, count = sums = _SumOverProcesses.apply(sums)
        centred = wide - (sums[:-1] / count).view(1, -1, 1, 1)
        squares = _SumOverProcesses.apply(centred.square().sum((0, 2, 3)))
        self._track(sums[:-1].detach() / count, squares.detach() / (count - 1))
        scale = (squares / count + self.eps).rsqrt() * (1 if self.weight is None else self.weight)
        shifted = centred * scale.view(1, -1, 1, 1)
        return (shifted if self.bias is None else shifted + self.bias.view(1, -1, 1, 1)).to(images.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.num_batches_tracked.reciprocal() if self.momentum is None else self.momentum
        self.running_mean += share * (mean - self.running_mean)
        self.running_var += share * (variance - self.running_var)


class BatchNorm1d(BatchNorm2d):
    """`torch.nn.BatchNorm1d`, for vectors (M, C) and series (M, C, L), that keeps tasks apart as `BatchNorm2d` does."""

    def forward(self, values: Tensor) -> Tensor:
        """Normalise values (B*M, C) or (B*M, C, L) per channel for each task."""
        return super().forward(values.reshape(*values.shape[:2], -1, 1)).view(values.shape)


class BatchNorm3d(BatchNorm2d):
    """`torch.nn.BatchNorm3d`, for volumes (M, C, D, H, W), that keeps tasks apart as `BatchNorm2d` does."""

    def forward(self, volumes: Tensor) -> Tensor:
        """Normalise volumes (B*M, C, D, H, W) per channel for each task."""
        return super().forward(volumes.flatten(3)).view(volumes.shape)


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce; the derivative of a sum that every process uses is the sum of the processes' derivatives."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SumOverProcesses.apply(gradient)


class _NormaliseSlices(torch.autograd.Function):
    """torch's own kernels on one task after the other, five times as fast on a CPU as every batched formulation."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        normalised = torch.empty_like(images)
        dtype = images.dtype if weight is None else weight.dtype
        # with a momentum of 1 the kernel leaves the mean and the unbiased variance in its running statistics
        mean, variance, used_mean, used_scale = torch.zeros(4, count, images.shape[1], dtype=dtype)
        size = len(images) // count
        for task, (source, target) in enumerate(zip(images.split(size), normalised.split(size))):
            statistics = {"out": target, "save_mean": used_mean[task], "save_invstd": used_scale[task]}
            _batch_norm.out(source, weight, bias, mean[task], variance[task], True, 1.0, eps, **statistics)
        ctx.save_for_backward(images, weight, used_mean, used_scale)
        ctx.mark_non_differentiable(mean, variance)
        ctx.eps, ctx.size = eps, size
        return normalised, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, used_mean, used_scale = ctx.saved_tensors
        slices = zip(gradient.split(ctx.size), images.split(ctx.size), used_mean, used_scale)
        wanted = ctx.needs_input_grad[:3]
        parts = [
            _batch_norm_backward(upstream, source, weight, None, None, mean, scale, True, ctx.eps, wanted)
            for upstream, source, mean, scale in slices
        ]
        to_images, to_weight, to_bias = ([part[i] for part in parts] if wanted[i] else None for i in range(3))
        return (
            torch.cat(to_images) if to_images else None,
            torch.stack(to_weight).sum(0) if to_weight else None,
            torch.stack(to_bias).sum(0) if to_bias else None,
            None,
            None,
        )


class _NormaliseTwiceDifferentiable(torch.autograd.Function):
    """torch's own kernel with a second derivative in four passes over the images, where torch's takes a dozen."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        normalised, mean, scale = _batch_norm(images, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(images, weight, mean, scale)
        ctx.eps = eps
        return normalised

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *_NormaliseGradient.apply(gradient, *ctx.saved_tensors, ctx.eps), None


class _NormaliseGradient(torch.autograd.Function):
    """The gradient g -> (of images, of weight, of bias) of batch normalisation, as a function of its own.

    With means over the n values of a channel, z the standardised images x, s their inverse deviation and w the weight,
    the gradient of the images is w s (g - mean(g) - z mean(g z)). It is its own adjoint in g, and every mean that its
    derivative needs is one that the kernel returns, except that of g times the incoming direction.
    """

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, images: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        outcome = _batch_norm_backward(gradient, images, weight, None, None, mean, scale, True, eps, [True] * 3)
        ctx.save_for_backward(gradient, images, weight, mean, scale, *outcome[1:])
        ctx.eps = eps
        return outcome

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor, to_weight: Tensor, to_bias: Tensor) -> tuple[Tensor | None, ...]:
        gradient, images, weight, mean, scale, *sums = ctx.saved_tensors
        n = images.numel() // images.shape[1]
        direction = direction.to(images.dtype)
        moved, *direction_sums = _batch_norm_backward(
            direction, images, weight, None, None, mean, scale, True, ctx.eps, [True] * 3
        )
        (gradient_z, gradient_mean), (direction_z, direction_mean) = (
            (times_z / n, plain / n) for times_z, plain in (sums, direction_sums)
        )
        product = (direction * gradient).sum((0, 2, 3), dtype=scale.dtype) / n
        product = product - direction_mean * gradient_mean - direction_z * gradient_z
        common = weight * scale.square()
        of_images = scale * (common * (2 * gradient_z * direction_z - product) - scale * to_weight * gradient_z)
        of_gradient = scale * to_weight - common * direction_z
        constant = common * (direction_mean * gradient_z + gradient_mean * direction_z)
        constant = constant - scale * to_weight * gradient_mean - of_images * mean
        channel = (1, -1, 1, 1)
        second = torch.addcmul(constant.view(channel), images, of_images.view(channel))
        second = second.addcmul_(direction, (-common * gradient_z).view(channel))
        second = second.addcmul_(gradient, of_gradient.view(channel))
        shift = (to_bias - scale * to_weight * mean).view(channel)
        first = torch.addcmul(shift, images, (scale * to_weight).view(channel)) + moved
        return first.to(gradient.dtype), second.to(images.dtype), scale * product * n, None, None, None


def _normalise_batched(
    images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One formula over all tasks: few launches on a GPU, and loops that torch.compile can fuse."""
    tasks = images.unflatten(0, (count, -1))
    wide = tasks.to(torch.promote_types(images.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, (1, 3, 4), correction=0, keepdim=True)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.view(-1, 1, 1)
    shift = -mean * scale if bias is None else bias.view(-1, 1, 1) - mean * scale
    normalised = torch.addcmul(shift, wide, scale).to(images.dtype).flatten(0, 1)
    values = wide.numel() // scale.numel()
    flat_mean, flat_variance = (statistic.detach().flatten(1) for statistic in (mean, variance))
    return normalised, flat_mean, flat_variance * (values / (values - 1))
