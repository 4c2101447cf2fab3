from plugins.scheduler.constant import ConstantRate


def test_the_rate_stays_bit_for_bit(make_optimizer, rates):
    optimizer = make_optimizer(rates=(0.1, 0.7))
    assert set(rates(optimizer, ConstantRate()(optimizer, 0), 20)) == {0.1}
    assert optimizer.param_groups[1]["lr"] == 0.7
