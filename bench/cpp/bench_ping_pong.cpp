// The bare ping-pong for the benchmarks in Python, which take turns with it: for each line on
// stdin, a number of round trips, one line with the nanoseconds that each of them took. Sleeps
// meanwhile.

#include <cstdio>
#include <vector>

#include "bench/cpp/common/clock.hpp"
#include "bench/cpp/common/failure.hpp"
#include "bench/cpp/common/process.hpp"
#include "bench/cpp/common/stage.hpp"
#include "bench/cpp/links/bare.hpp"

namespace penstock::bench {
namespace {

void echo(PingPongLink& link, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
        link.receive([&](Bytes nothing) { link.answer(nothing); });
    }
}

std::vector<Ticks> ping(PingPongLink& link, std::uint32_t count) {
    std::vector<Ticks> taken(count);
    for (Ticks& one : taken) {
        const Ticks before = ticks();
        link.send({});
        link.collect([](Bytes /*nothing*/) {});
        one = ticks() - before;
    }
    return taken;
}

void answer_lines() {
    require(has_core_each(1), "a bare ping-pong needs two processors");
    fail_when_a_child_fails();
    PingPongLink link({});
    Stage stage(
        1, [&](unsigned rank) { link.open_reader(rank); },
        [&](unsigned /*rank*/, Turn turn) { echo(link, turn.count); }, [] {});
    pin_driver();
    std::uint32_t count = 0;
    while (std::scanf("%u", &count) == 1 && count > 0) {
        stage.begin({0, count});
        const std::vector<Ticks> taken = ping(link, count);
        stage.end();
        for (const Ticks one : taken) {
            std::printf("%.1f ", to_nanoseconds(one));
        }
        std::printf("\n");
        std::fflush(stdout);
    }
    stage.leave();
}

}  // namespace
}  // namespace penstock::bench

int main() {
    penstock::bench::answer_lines();
}
