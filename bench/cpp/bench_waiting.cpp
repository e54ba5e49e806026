// Waiting: the time until a parked reader wakes, beside a bare futex wake and a Unix socket that
// take turns with it message by message; and the cost of eight parked readers without messages.

#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <ctime>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

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

// The state letter and the processor clock of another process, as the kernel reports them.
class Watched {
public:
    explicit Watched(pid_t pid) : folder_("/proc/" + std::to_string(pid)) {
        require(clock_getcpuclockid(pid, &clock_) == 0, "clock_getcpuclockid failed");
    }

    [[nodiscard]] bool is_asleep() const {
        std::ifstream file(folder_ + "/stat");
        std::string text;
        std::getline(file, text);
        const std::size_t end_of_name = text.rfind(')');
        return end_of_name + 2 < text.size() && text[end_of_name + 2] == 'S';
    }
    [[nodiscard]] double used_nanoseconds() const { return processor_nanoseconds(clock_); }

    // The number of its voluntary sleeps: one per wake-up.
    [[nodiscard]] double sleeps() const {
        std::ifstream file(folder_ + "/status");
        const std::string key = "voluntary_ctxt_switches:";
        for (std::string line; std::getline(file, line);) {
            if (line.starts_with(key)) {
                return std::stod(line.substr(key.size()));
            }
        }
        return 0;
    }

private:
    std::string folder_;
    clockid_t clock_{};
};

// Messages of the waiting side to the waking one, outside of the measurement.
struct alignas(kLine) Board {
    std::atomic<std::uint32_t> word = 0;  // the bare futex
    alignas(kLine) std::atomic<std::uint64_t> about_to_wait = 0;
    alignas(kLine) std::atomic<std::uint64_t> woken = 0;
    Ticks woken_at = 0;
};

void futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value) {
    syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
}

// Three ways of waking. Each has a waiting side, run in the child, and a waking side.
struct Way {
    const char* name;
    std::function<void(std::uint64_t sequence)> wait;
    std::function<void(std::uint64_t sequence)> wake;
    Samples samples;
};

class Wakes {
public:
    Wakes() : payload_(kSize) {
        require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_) == 0,
                "socketpair failed");
        ways_.push_back({"bare futex",
                         [&](auto sequence) { wait_futex(sequence); },
                         [&](auto sequence) { wake_futex(sequence); },
                         {}});
        ways_.push_back({"penstock",
                         [&](auto sequence) { wait_penstock(sequence); },
                         [&](auto sequence) { wake_penstock(sequence); },
                         {}});
        ways_.push_back({"unix socket",
                         [&](auto sequence) { wait_socket(sequence); },
                         [&](auto sequence) { wake_socket(sequence); },
                         {}});
    }

    void run(unsigned rounds) {
        const std::string name = new_name();
        unpin();
        Child sleeper([&] {
            pin_reader(0);
            reader_ = BroadcastReader::attach(name, 0, kPatience);
            sleep_all(rounds);
            reader_.reset();
        });
        writer_ = BroadcastWriter::create(name);
        require(writer_->wait_ready(kPatience));
        pin_driver();
        wake_all(Watched(sleeper.pid()), rounds);
        sleeper.join();
        for (const Way& way : ways_) {
            Record("wake").text("who", way.name).latency(way.samples).print();
        }
    }

private:
    static constexpr unsigned kWarmUp = 20;
    static constexpr unsigned kTurn = 50;  // rounds that share a median

    void sleep_all(unsigned rounds) {
        std::uint64_t step = 0;
        for (unsigned round = 0; round < rounds + kWarmUp; ++round) {
            for (Way& way : ways_) {
                board_->about_to_wait.store(++step, std::memory_order_release);
                way.wait(round);
                board_->woken_at = ticks();
                board_->woken.store(step, std::memory_order_release);
            }
        }
    }

    void wake_all(const Watched& sleeper, unsigned rounds) {
        std::minstd_rand random(1);
        std::uint64_t step = 0;
        for (unsigned round = 0; round < rounds + kWarmUp; ++round) {
            for (Way& way : ways_) {
                ++step;
                while (board_->about_to_wait.load(std::memory_order_acquire) != step) {
                }
                while (!sleeper.is_asleep()) {
                }
                // Sleeps for a random time, so that no period can match.
                spin_for(std::uniform_real_distribution(50e3, 350e3)(random));
                const Ticks begin = ticks();
                way.wake(round);
                while (board_->woken.load(std::memory_order_acquire) != step) {
                }
                if (round >= kWarmUp) {
                    way.samples.add(board_->woken_at - begin);
                }
            }
            if (round >= kWarmUp && (round - kWarmUp + 1) % kTurn == 0) {
                for (Way& way : ways_) {
                    way.samples.end_turn();
                }
            }
        }
    }

    void wait_futex(std::uint64_t sequence) {
        const auto wanted = static_cast<std::uint32_t>(sequence + 1);
        while (board_->word.load(std::memory_order_acquire) != wanted) {
            futex(board_->word, FUTEX_WAIT, wanted - 1);
        }
    }
    void wake_futex(std::uint64_t sequence) {
        board_->word.store(static_cast<std::uint32_t>(sequence + 1), std::memory_order_release);
        futex(board_->word, FUTEX_WAKE, INT_MAX);
    }

    void wait_penstock(std::uint64_t sequence) {
        payload_.check(require(reader_->recv()).bytes(), sequence);
    }
    void wake_penstock(std::uint64_t sequence) {
        require(writer_->send(payload_.numbered(sequence)));
    }

    void wait_socket(std::uint64_t sequence) {
        std::byte buffer[kSize];
        require(::recv(ends_[1], buffer, sizeof(buffer), MSG_WAITALL) == kSize, "recv failed");
        payload_.check(buffer, sequence);
    }
    void wake_socket(std::uint64_t sequence) {
        const auto message = payload_.numbered(sequence);
        require(::send(ends_[0], message.data(), message.size(), 0) == kSize, "send failed");
    }

    Payload payload_;
    Shared<Board> board_;
    int ends_[2] = {-1, -1};
    std::optional<BroadcastWriter> writer_;
    std::optional<BroadcastReader> reader_;
    std::vector<Way> ways_;
};

// A long wait begins with a few short sleeps, and its process's first one starts a thread.
constexpr std::chrono::seconds kSettling(1);

// Eight readers wait for a message that comes only at the end.
void measure_parked(std::chrono::seconds span) {
    constexpr unsigned kReaders = 8;
    const std::string name = new_name();
    Payload payload(kSize);
    unpin();
    std::vector<Child> readers;
    for (unsigned rank = 0; rank < kReaders; ++rank) {
        readers.emplace_back([&, rank] {
            auto reader = BroadcastReader::attach(name, rank, kPatience);
            payload.check(require(reader.recv()).bytes(), 0);
        });
    }
    BroadcastOptions options;
    options.readers = kReaders;
    auto writer = BroadcastWriter::create(name, options);
    require(writer.wait_ready(kPatience));

    std::vector<Watched> watched;
    for (const Child& reader : readers) {
        watched.emplace_back(reader.pid());
        while (!watched.back().is_asleep()) {
            std::this_thread::yield();
        }
    }
    std::this_thread::sleep_for(kSettling);
    std::vector<double> used(kReaders);
    std::vector<double> sleeps(kReaders);
    const auto begin = Clock::now();
    for (unsigned rank = 0; rank < kReaders; ++rank) {
        used[rank] = -watched[rank].used_nanoseconds();
        sleeps[rank] = -watched[rank].sleeps();
    }
    std::this_thread::sleep_for(span);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    for (unsigned rank = 0; rank < kReaders; ++rank) {
        used[rank] = (used[rank] + watched[rank].used_nanoseconds()) * 1e-9;
        sleeps[rank] += watched[rank].sleeps();
    }
    require(writer.send(payload.numbered(0)));
    for (Child& reader : readers) {
        reader.join();
    }

    double total = 0;
    double total_sleeps = 0;
    for (unsigned rank = 0; rank < kReaders; ++rank) {
        total += used[rank];
        total_sleeps += sleeps[rank];
    }
    Record("parked")
        .text("who", "penstock")
        .count("readers", kReaders)
        .number("seconds", seconds)
        .number("processor_seconds", total)
        .number("worst_share", *std::max_element(used.begin(), used.end()) / seconds)
        .number("sleeps_per_second", total_sleeps / kReaders / seconds)
        .list("reader_processor_seconds", used)
        .print();
}

}  // namespace
}  // namespace penstock::bench

int main(int argc, char** argv) {
    using namespace penstock::bench;
    const auto arguments = parse_arguments(argc, argv);
    return run_guarded(120, [&] {
        fail_when_a_child_fails();
        Wakes().run(arguments.quick ? 300 : 1500);
        measure_parked(std::chrono::seconds(arguments.quick ? 3 : 10));
    });
}
