// Throughput by message size and number of readers: the driver sends as fast as possible, every
// reader reads and checks each message, and time runs from the first send until the last reader has
// checked the last message. Penstock and the peers take turns in the same processes, and a bare
// ping-pong in each turn tells where the processors are.

#include <algorithm>
#include <cstring>
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
    std::uint32_t count;  // messages in a turn with one reader
};

constexpr Case kCases[] = {
    {64, 12, 400'000},  {1 << 10U, 10, 100'000}, {16 << 10U, 10, 10'000},
    {1 << 20U, 8, 200}, {16 << 20U, 6, 12},      {64 << 20U, 4, 4},
};
constexpr unsigned kReaders[] = {1, 2, 4, 8};

constexpr std::size_t kLargestForPeersOfMany = 1 << 20U;
constexpr std::size_t kLargestInBareRing = 16 << 10U;
constexpr std::uint32_t kPings = 500;  // in a turn

struct Rates {
    std::vector<double> messages_per_second;  // one for each turn
    std::vector<double> driver_ns;            // processor time of the driver for each message
    std::vector<double> reader_ns;            // and of the first reader

    [[nodiscard]] static double median(std::vector<double> values) {
        std::sort(values.begin(), values.end());
        return values[values.size() / 2];
    }
};

void print(const Place& place, const Contender& contender, std::uint32_t count, const Rates& rates,
           const Samples& moment) {
    const double rate = Rates::median(rates.messages_per_second);
    Record("throughput")
        .text("who", contender.name())
        .count("size", place.message_size)
        .count("readers", place.readers)
        .count("count", std::uint64_t{count} * rates.messages_per_second.size())
        .number("messages_per_s", rate)
        .number("bytes_per_s", rate * static_cast<double>(place.message_size))
        .number("driver_processor_ns", Rates::median(rates.driver_ns))
        .number("reader_processor_ns", Rates::median(rates.reader_ns))
        .list("turn_messages_per_s", rates.messages_per_second)
        .moment(moment)
        .print();
}

void play(Stage& stage, unsigned index, Contender& contender, std::uint32_t count, Rates& rates) {
    stage.begin({index, count});
    const double used_before = processor_nanoseconds(CLOCK_THREAD_CPUTIME_ID);
    const Ticks begin = ticks();
    contender.pour(count);
    const double used = processor_nanoseconds(CLOCK_THREAD_CPUTIME_ID) - used_before;
    const Ticks end = stage.end();
    rates.messages_per_second.push_back(count / (to_nanoseconds(end - begin) * 1e-9));
    rates.driver_ns.push_back(used / count);
    rates.reader_ns.push_back(stage.used_nanoseconds(0) / count);
}

void ping(Stage& stage, unsigned index, Contender& ping_pong, Samples& samples) {
    constexpr std::uint32_t kWarmUp = kPings / 10;
    stage.begin({index, kPings + kWarmUp});
    ping_pong.ping(kPings + kWarmUp, kWarmUp, samples);
    stage.end();
    samples.end_turn();
}

void run(const Place& place, unsigned turns, std::uint32_t count, const Arguments& arguments) {
    unpin();
    Contenders all;
    add_contender<PenstockLink>(all, place);
    if (place.readers == 1) add_contender<PenstockQueueLink>(all, place);
    if (place.readers == 1 && has_core_each(1) && place.message_size <= kLargestInBareRing) {
        add_contender<BareRingLink>(all, place);
    }
    if (place.readers == 1 || place.message_size <= kLargestForPeersOfMany) {
        add_peers(all, place);
    }
    std::erase_if(all, [&](const auto& one) { return !arguments.wants(one->name()); });
    const auto contenders = static_cast<unsigned>(all.size());
    const bool has_moment = has_core_each(1);
    if (has_moment) add_contender<PingPongLink>(all, place);
    Stage stage(
        place.readers,
        [&](unsigned rank) {
            for (auto& one : all) {
                one->open_reader(rank);
            }
        },
        [&](unsigned /*rank*/, Turn turn) {
            Contender& one = *all[turn.contender];
            if (turn.contender < contenders) {
                one.drain(turn.count);
            } else {
                one.echo(turn.count);
            }
        },
        [&] {
            for (auto& one : all) {
                one->close();
            }
        });
    for (auto& one : all) {
        one->open_driver();
    }
    pin_driver();

    Samples moment;
    std::vector<Rates> rates(contenders);
    const Patience patience(arguments.quick ? 0.8 : 4);
    for (unsigned turn = 0; turn <= turns && !patience.is_over(turn); ++turn) {
        const bool is_warm_up = turn == 0;
        if (has_moment && !is_warm_up) ping(stage, contenders, *all.back(), moment);
        for (unsigned index = 0; index < contenders; ++index) {
            Rates warm_up;
            const std::uint32_t played = is_warm_up ? std::max(2U, count / 4) : count;
            play(stage, index, *all[index], played, is_warm_up ? warm_up : rates[index]);
        }
    }
    stage.leave();
    for (unsigned index = 0; index < contenders; ++index) {
        print(place, *all[index], count, rates[index], moment);
    }
    for (auto& one : all) {
        one->close();
    }
}

void run_all(const Arguments& arguments) {
    fail_when_a_child_fails();
    for (const Case& one : kCases) {
        for (const unsigned readers : kReaders) {
            const bool is_skipped = arguments.quick && readers != 1 && readers != kMaxReaders;
            if (!is_skipped && arguments.wants_size(one.size) && arguments.wants_readers(readers)) {
                const unsigned turns = std::max(2U, one.turns / (arguments.quick ? 4 : 1));
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
