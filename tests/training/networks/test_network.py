"""Dropout: the fraction that is zeroed, the scale of the rest, and what masks depend on."""

import numpy as np
import tensorflow as tf

from quickfox.training.networks.network import NO_DROPOUT, Dropout

ONES = tf.ones([50, 20, 30])


def dropout(*seed: int) -> Dropout:
    return Dropout(0.25, tf.constant(seed, tf.int32))


def test_dropout_zeroes_a_fraction_and_scales_the_rest() -> None:
    dropped = dropout(1, 2).apply(ONES, 0).numpy()
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((dropped == 0).mean() - 0.25) < 0.01


def test_variational_dropout_uses_one_mask_for_all_time_steps() -> None:
    dropped = dropout(1, 2).apply_variational(ONES, 0).numpy()
    assert (dropped == dropped[0]).all()
    assert 0.15 < (dropped[0] == 0).mean() < 0.35


def test_masks_depend_on_seed_and_mask_index_only() -> None:
    first = dropout(1, 2).apply(ONES, 3).numpy()
    np.testing.assert_array_equal(dropout(1, 2).apply(ONES, 3), first)
    for other in (dropout(2, 2).apply(ONES, 3), dropout(1, 3).apply(ONES, 3), dropout(1, 2).apply(ONES, 4)):
        assert not np.array_equal(other, first)


def test_without_dropout_outputs_are_unchanged() -> None:
    assert NO_DROPOUT.apply(ONES, 0) is ONES
