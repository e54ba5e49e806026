// Latency by message size and number of readers: half of a round trip through two links of the same
// kind, read and checked on both sides. Bare limits, Penstock and the peers take turns of about a
// millisecond in the same processes, so that noise affects all of them alike.

#include <vector>

#include "bench/cpp/common/arguments.hpp"
#include "bench/cpp/common/contender.hpp"
#include "bench/cpp/common/guardian.hpp"
#include "bench/cpp/common/process.hpp"
#include "bench/cpp/common/report.hpp"
#include "bench/cpp/common/stage.hpp"

namespace penstock::bench {
namespace {

struct Case {
    std::size_t size;
    unsigned turns;
    std::uint32_t count;  // round trips in a turn with one reader
};

constexpr Case kCases[] = {
    {64, 60, 500},        {1 << 10U, 60, 500}, {4 << 10U, 40, 300}, {16 << 10U, 30, 200},
    {256 << 10U, 20, 50}, {1 << 20U, 12, 25},  {16 << 20U, 6, 6},   {64 << 20U, 4, 4},
};
constexpr unsigned kReaders[] = {1, 2, 4, 8};
constexpr std::size_t kLargestCopiedOut = 4 << 10U;
constexpr std::size_t kLargestForPeersOfMany = 1 << 20U;

Contenders contenders_for(const Place& place) {
    Contenders all;
    if (has_core_each(1)) {
        add_contender<PingPongLink>(all, place);
    }
    add_contender<PenstockLink>(all, place);
    if (place.message_size <= kLargestCopiedOut) add_contender<PenstockInPlaceLink>(all, place);
    if (has_core_each(place.readers) && place.readers == 1) {
        add_contender<SharedBufferLink>(all, place);
    }
    if (place.readers == 1 || place.message_size <= kLargestForPeersOfMany) {
        add_peers(all, place);
    }
    return all;
}

void print(const Place& place, const Contender& contender, const Samples& samples) {
    Record("latency")
        .text("who", contender.name())
        .count("size", place.message_size)
        .count("readers", place.readers)
        .latency(samples, 2)
        .print();
}

void run(const Place& place, unsigned turns, std::uint32_t count, const Arguments& arguments) {
    Contenders all = contenders_for(place);
    std::erase_if(all, [&](const auto& one) { return !arguments.wants(one->name()); });
    unpin();
    Stage stage(
        place.readers,
        [&](unsigned rank) {
            for (auto& one : all) {
                one->open_reader(rank);
            }
        },
        [&](unsigned /*rank*/, Turn turn) { all[turn.contender]->echo(turn.count); },
        [&] {
            for (auto& one : all) {
                one->close();
            }
        });
    for (auto& one : all) {
        one->open_driver();
    }
    pin_driver();

    const std::uint32_t warm_up = std::max<std::uint32_t>(2, count / 10);
    std::vector<Samples> samples(all.size());
    for (Samples& some : samples) {
        some.reserve(std::size_t{turns} * count);
    }
    for (unsigned index = 0; index < all.size(); ++index) {
        stage.begin({index, all[index]->warm_up_count()});
        all[index]->warm_up();
        stage.end();
    }
    const Patience patience(arguments.quick ? 0.8 : 4);
    for (unsigned turn = 0; turn < turns && !patience.is_over(turn); ++turn) {
        for (unsigned index = 0; index < all.size(); ++index) {
            stage.begin({index, count + warm_up});
            all[index]->ping(count + warm_up, warm_up, samples[index]);
            stage.end();
            samples[index].end_turn();
        }
    }
    stage.leave();
    for (unsigned index = 0; index < all.size(); ++index) {
        print(place, *all[index], samples[index]);
        all[index]->close();
    }
}

void run_all(const Arguments& arguments) {
    fail_when_a_child_fails();
    for (const Case& one : kCases) {
        for (const unsigned readers : kReaders) {
            const bool is_skipped = arguments.quick && readers != 1 && readers != kMaxReaders;
            if (!is_skipped && arguments.wants_size(one.size) && arguments.wants_readers(readers)) {
                const unsigned turns = std::max(2U, one.turns / (arguments.quick ? 6 : 1));
                const std::uint32_t count =
                    std::max<std::uint32_t>(2, one.count / (readers == 1 ? 1 : 2 * readers));
                run({new_name(), one.size, readers}, turns, count, arguments);
            }
        }
    }
}

}  // namespace
}  // namespace penstock::bench

int main(int argc, char** argv) {
    const auto arguments = penstock::bench::parse_arguments(argc, argv);
    return penstock::bench::run_guarded(400, [&] { penstock::bench::run_all(arguments); });
}
