// After SIGKILL: the time until a writer that waits for a dead reader has its first error, or
// (on_reader_death = Drop) sends its first message again, and until a parked reader learns that its
// writer died. Also the memory of a default Broadcast.

#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <thread>

#include "bench/cpp/common/arguments.hpp"
#include "bench/cpp/common/clock.hpp"
#include "bench/cpp/common/guardian.hpp"
#include "bench/cpp/common/payload.hpp"
#include "bench/cpp/common/process.hpp"
#include "bench/cpp/common/report.hpp"
#include "bench/cpp/common/shared.hpp"
#include "penstock/broadcast.hpp"

namespace penstock::bench {
namespace {

constexpr std::chrono::nanoseconds kPatience = std::chrono::seconds(20);
constexpr std::size_t kSize = 64;
constexpr std::size_t kSmallRing = 64 << 10U;

std::string describe(const Status& status) {
    return std::string(to_string(status.code())).append(": ").append(status.message());
}

// A reader that attaches and then never reads.
Child idle_reader(const std::string& name) {
    return Child([name] {
        auto reader = BroadcastReader::attach(name, 0, kPatience);
        for (;;) {
            pause();
        }
    });
}

// Kills `victim` at a random moment from another thread, and records the time.
class Killer {
public:
    Killer(Child& victim, std::function<void()> until_blocked)
        : thread_([&victim, this, until_blocked] {
              until_blocked();
              static std::minstd_rand random(7);
              std::this_thread::sleep_for(std::chrono::microseconds(1000 + random() % 60'000));
              killed_at_ = ticks();
              kill(victim.pid(), SIGKILL);
          }) {}

    // The time of the kill.
    Ticks join() {
        thread_.join();
        return killed_at_;
    }

private:
    Ticks killed_at_ = 0;
    std::thread thread_;
};

// The writer's ring is full, its reader dies: the time until the blocked send returns.
Ticks reader_dies(OnReaderDeath on_reader_death) {
    const std::string name = new_name();
    Payload payload(kSize);
    Child reader = idle_reader(name);
    BroadcastOptions options;
    options.capacity = kSmallRing;
    options.on_reader_death = on_reader_death;
    auto writer = BroadcastWriter::create(name, options);
    require(writer.wait_ready(kPatience));
    std::uint64_t sequence = 0;
    while (writer.send(payload.numbered(sequence), Deadline::now()).is_ok()) {
        ++sequence;
    }

    Killer killer(reader, [&] {
        while (writer.blocked_by().empty()) {
            std::this_thread::yield();
        }
    });
    const Status status = writer.send(payload.numbered(sequence), kPatience);
    const Ticks returned_at = ticks();
    const ErrorCode expected =
        on_reader_death == OnReaderDeath::Raise ? ErrorCode::PeerDied : ErrorCode::Ok;
    require(status.code() == expected, "blocked by a dead reader: " + describe(status));
    return returned_at - killer.join();
}

// A parked reader's writer dies: the time until recv returns.
Ticks writer_dies() {
    const std::string name = new_name();
    Child writer([name] {
        auto dying = BroadcastWriter::create(name);
        for (;;) {
            pause();
        }
    });
    auto reader = BroadcastReader::attach(name, 0, kPatience);
    std::atomic<bool> about_to_wait = false;
    Killer killer(writer, [&] { about_to_wait.wait(false); });
    about_to_wait = true;
    about_to_wait.notify_one();
    const Result<BroadcastMessage> message = reader.recv(kPatience);
    const Ticks returned_at = ticks();
    require(message.code() == ErrorCode::PeerDied,
            "parked when its writer died: " + describe(message.status()));
    return returned_at - killer.join();
}

template <typename Measure>
void repeat(const char* what, unsigned times, Measure&& measure) {
    Samples samples;
    for (unsigned i = 0; i < times; ++i) {
        samples.add(measure());
        samples.end_turn();
    }
    Record("recovery").text("who", "penstock").text("what", what).latency(samples).print();
}

// The memory of a default Broadcast's file, new and after every byte of its ring was written.
void measure_memory() {
    const std::string name = new_name();
    Payload payload(4096);
    Child reader([&] {
        auto all = BroadcastReader::attach(name, 0, kPatience);
        for (std::uint64_t sequence = 0;; ++sequence) {
            Result<BroadcastMessage> message = all.recv();
            if (message.code() == ErrorCode::Closed) {
                return;
            }
            payload.check(require(std::move(message)).bytes(), sequence);
        }
    });
    auto writer = BroadcastWriter::create(name);
    const auto bytes_taken = [&] {
        struct stat about{};
        require(fstat(writer.descriptor(), &about) == 0, "fstat failed");
        return static_cast<std::uint64_t>(about.st_blocks) * 512;
    };
    const std::uint64_t fresh = bytes_taken();
    require(writer.wait_ready(kPatience));
    for (std::uint64_t sequence = 0; sequence < 3000; ++sequence) {
        require(writer.send(payload.numbered(sequence)));
    }
    Record("memory")
        .text("who", "penstock")
        .count("fresh_bytes", fresh)
        .count("used_bytes", bytes_taken())
        .print();
    writer.close();
    reader.join();
}

}  // namespace
}  // namespace penstock::bench

int main(int argc, char** argv) {
    using namespace penstock::bench;
    const auto arguments = parse_arguments(argc, argv);
    return run_guarded(120, [&] {
        const unsigned times = arguments.quick ? 8 : 40;
        repeat("reader killed, writer gets PeerDied", times,
               [] { return reader_dies(penstock::OnReaderDeath::Raise); });
        repeat("reader killed, next message flows", times,
               [] { return reader_dies(penstock::OnReaderDeath::Drop); });
        repeat("writer killed, reader gets PeerDied", times, [] { return writer_dies(); });
        measure_memory();
    });
}
