import torch
from torchvision.transforms.v2 import functional as F

from plugins.augmentation.three_augment import ThreeAugment
from tests.plugins.augmentation.torchvisions import images


def test_a_batch_of_256_draws_is_torchvisions_one_image_at_a_time(build, batch):
    plugin, given = ThreeAugment(), batch(256)
    given.x, module = images(256), build(plugin, seed=int(torch.randint(2**31, ())))
    before, out = given.x.clone(), plugin.transform_batch(given, module).x
    generator = module.generator("three_augment", "cpu")
    kinds = torch.randint(3, (256,), generator=generator)
    sigma = 0.1 + 1.9 * torch.rand(256, generator=generator)
    by = (
        lambda image, i: F.rgb_to_grayscale(image, 3),
        lambda image, i: F.solarize(image, 0.5),
        lambda image, i: F.gaussian_blur(image, [13, 13], [float(sigma[i])] * 2),
    )
    expected = torch.stack([by[kind](image, i) for i, (kind, image) in enumerate(zip(kinds.tolist(), before, strict=True))])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert torch.equal(given.x, before) and kinds.bincount().min() > 40
