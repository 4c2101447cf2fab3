import pytest
import torch
from torchvision.transforms.v2 import functional as F

from plugins.augmentation._colours import blur, kernel_size
from plugins.augmentation.blur import GaussianBlur
from plugins.base import RecipeError, Refusal


@pytest.mark.parametrize(("shape", "size"), [((3, 12, 10), None), ((1, 9, 8), 5), ((3, 2, 3), None)])
def test_a_batch_of_256_draws_is_torchvisions_one_image_at_a_time(build, batch, shape, size):
    plugin, given = GaussianBlur(0.9, [0.2, 3.0], size), batch(256, shape)
    module = build(plugin, shape=shape, seed=int(torch.randint(2**31, ())))
    before, out = given.x.clone(), plugin.transform_batch(given, module).x
    generator = module.generator("blur", "cpu")
    chosen, sigma = (torch.rand(256, generator=generator) for _ in range(2))
    sigma, wide = 0.2 + 2.8 * sigma, size or min(19, 2 * min(shape[1:]) - 1)
    assert torch.equal(out[chosen >= 0.9], before[chosen >= 0.9]) and torch.equal(given.x, before)
    for i in (chosen < 0.9).nonzero()[:, 0].tolist():
        expected = F.gaussian_blur(before[i], [wide, wide], [float(sigma[i])] * 2)
        torch.testing.assert_close(out[i], expected, atol=1e-5, rtol=0)
    assert len(sigma.unique()) > 250  # of 24 bits: two may be equal


def test_autocast_changes_no_number_and_kernels_have_room():
    x, sigma = torch.rand(9, 3, 12, 12), torch.rand(9) + 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = blur(x, sigma, 7)
    assert torch.equal(rounded, blur(x, sigma, 7))
    assert [kernel_size((3, side, 32), 2.0) for side in (1, 2, 6, 7, 32)] == [1, 3, 11, 13, 13]


def test_refuses_kernels_that_are_even_or_wider_than_the_mirror(build):
    with pytest.raises(Refusal, match="pixel in the middle: type augmentation.blur.kernel_size=5"):
        build(GaussianBlur(kernel_size=4))
    with pytest.raises(Refusal, match="mirrors 8 pixels at the border of images with 8: .*kernel_size=15 or less"):
        build(GaussianBlur(kernel_size=17))
    for sigma in ([2.0, 0.1], [0.0, 1.0], [1.0], 1.0, ["a", "b"]):
        with pytest.raises(RecipeError, match="sigma must be two numbers > 0, the first not above the second"):
            GaussianBlur(sigma=sigma)


def test_images_that_were_cropped_since_are_blurred(build, batch):
    plugin = GaussianBlur(p=1.0, kernel_size=13)
    module = build(plugin)
    out = plugin.transform_batch(batch(4, (3, 3, 4)), module)
    assert out.x.shape == (4, 3, 3, 4) and out.x.isfinite().all()
