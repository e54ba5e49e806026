// The cost of one send for the writer, with one reader and with eight that keep up. Bursts fit into
// the ring, so that the writer never waits: its processor time per message. The two Broadcasts take
// turns in the same processes.
//
// "pure": the readers wait until the burst is over, then read and check all of it; only sending is
// timed. "live": the readers receive meanwhile, parked ones are woken, and the caches are
// contended, as far as there are cores for them.

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include "bench/cpp/common/arguments.hpp"
#include "bench/cpp/common/clock.hpp"
#include "bench/cpp/common/guardian.hpp"
#include "bench/cpp/common/payload.hpp"
#include "bench/cpp/common/process.hpp"
#include "bench/cpp/common/report.hpp"
#include "bench/cpp/common/stage.hpp"
#include "penstock/broadcast.hpp"

namespace penstock::bench {
namespace {

constexpr std::chrono::nanoseconds kPatience = std::chrono::seconds(20);
constexpr std::size_t kSize = 64;
// With its header a message takes at most 128 bytes: two megabytes of the ring's four.
constexpr std::uint32_t kBurst = 16 << 10U;
constexpr unsigned kReaderCounts[] = {1, 8};

// A Broadcast, and the number of readers attached to it.
struct Channel {
    std::string name;
    unsigned readers = 0;
    std::optional<BroadcastWriter> writer;
    std::uint64_t next = 0;
    std::vector<double> pure_ns;
    std::vector<double> live_ns;
};

// Sends a burst; returns the processor time per message.
double burst(Channel& channel, Payload& payload) {
    const std::uint64_t waits_before = channel.writer->stats().waits;
    const double before = processor_nanoseconds(CLOCK_THREAD_CPUTIME_ID);
    for (std::uint32_t i = 0; i < kBurst; ++i) {
        require(channel.writer->send(payload.numbered(channel.next++)));
    }
    const double used = processor_nanoseconds(CLOCK_THREAD_CPUTIME_ID) - before;
    require(channel.writer->stats().waits == waits_before, "the writer waited in a burst");
    return used / kBurst;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void print(const Channel& channel, const char* mode, const std::vector<double>& turns) {
    Record("writer_cost")
        .text("who", "penstock")
        .text("mode", mode)
        .count("size", kSize)
        .count("readers", channel.readers)
        .count("count", std::uint64_t{kBurst} * turns.size())
        .number("processor_ns", median(turns))
        .list("turn_processor_ns", turns)
        .print();
}

void run(unsigned turns) {
    std::vector<Channel> channels;
    for (const unsigned readers : kReaderCounts) {
        Channel& channel = channels.emplace_back();
        channel.name = new_name();
        channel.readers = readers;
    }
    Payload payload(kSize);

    // A reader process's end of each channel, and the next number expected there.
    struct End {
        std::optional<BroadcastReader> reader;
        std::uint64_t next = 0;
    };
    std::vector<End> ends(channels.size());
    Stage stage(
        kMaxReaders,
        [&](unsigned rank) {
            for (std::size_t i = 0; i < channels.size(); ++i) {
                if (rank < channels[i].readers) {
                    ends[i].reader = BroadcastReader::attach(channels[i].name, rank, kPatience);
                }
            }
        },
        [&](unsigned /*rank*/, Turn turn) {
            End& end = ends[turn.contender];
            for (std::uint32_t i = 0; end.reader && i < turn.count; ++i) {
                payload.check(require(end.reader->recv()).bytes(), end.next++);
            }
        },
        [&] { ends.clear(); });
    for (Channel& channel : channels) {
        BroadcastOptions options;
        options.readers = channel.readers;
        channel.writer = BroadcastWriter::create(channel.name, options);
        require(channel.writer->wait_ready(kPatience));
    }
    pin_driver();

    for (unsigned turn = 0; turn < turns; ++turn) {
        for (unsigned index = 0; index < channels.size(); ++index) {
            Channel& channel = channels[index];
            channel.pure_ns.push_back(burst(channel, payload));
            stage.begin({index, kBurst});
            stage.end();
            stage.begin({index, kBurst});
            channel.live_ns.push_back(burst(channel, payload));
            stage.end();
        }
    }
    stage.leave();
    for (Channel& channel : channels) {
        print(channel, "pure", channel.pure_ns);
        print(channel, "live", channel.live_ns);
    }
}

}  // namespace
}  // namespace penstock::bench

int main(int argc, char** argv) {
    using namespace penstock::bench;
    const auto arguments = parse_arguments(argc, argv);
    return run_guarded(120, [&] {
        fail_when_a_child_fails();
        run(arguments.quick ? 10 : 40);
    });
}
