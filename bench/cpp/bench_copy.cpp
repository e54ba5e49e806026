// Large messages: the cost of sending by copy beside a plain memcpy into the same warm memory (a
// loan's bytes, in the same mapping), and of sending by loan, which copies nothing. The three take
// turns message by message; a reader reads and checks each before the next one begins.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>
#include <span>
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
constexpr std::size_t kSizes[] = {1 << 20U, 16 << 20U, 64 << 20U};

// The number of messages that the reader has checked and released.
struct alignas(kLine) Progress {
    std::atomic<std::uint64_t> messages = 0;
};

class Course {
public:
    explicit Course(std::size_t size) : payload_(size), private_copy_(size) {
        const std::string name = new_name();
        unpin();
        reader_.emplace([&, name] { read_all(name); });
        writer_ = BroadcastWriter::create(name);
        require(writer_->wait_ready(kPatience));
        pin_driver();
    }

    void run(unsigned rounds) {
        for (unsigned round = 0; round < rounds; ++round) {
            keep(round, copied_, send_copied());
            keep(round, plain_, copy_plainly());
            keep(round, loaned_, send_loaned());
            keep(round, private_, copy_privately());
        }
        writer_->close();
        reader_->join();
        print("penstock copy", copied_);
        print("plain copy, same memory", plain_);
        print("penstock loan", loaned_);
        print("plain copy, private memory", private_);
    }

private:
    // The first rounds fault pages in and warm up; a round is a turn of one sample.
    static constexpr unsigned kWarmUp = 3;
    static void keep(unsigned round, Samples& samples, Ticks span) {
        if (round >= kWarmUp) {
            samples.add(span);
            samples.end_turn();
        }
    }

    void read_all(const std::string& name) {
        pin_reader(0);
        auto reader = BroadcastReader::attach(name, 0, kPatience);
        for (std::uint64_t sequence = 0;; ++sequence) {
            Result<BroadcastMessage> message = reader.recv();
            if (message.code() == ErrorCode::Closed) {
                return;
            }
            payload_.check(require(std::move(message)).bytes(), sequence);
            progress_->messages.store(sequence + 1, std::memory_order_release);
        }
    }

    void await_reader() {
        ++sent_;
        while (progress_->messages.load(std::memory_order_acquire) != sent_) {
        }
    }

    Ticks send_copied() {
        const std::span<const std::byte> message = payload_.numbered(sent_);
        const Ticks begin = ticks();
        require(writer_->send(message));
        const Ticks span = ticks() - begin;
        await_reader();
        return span;
    }

    Ticks copy_plainly() {
        const std::span<const std::byte> message = payload_.numbered(sent_);
        BroadcastLoan loan = require(writer_->loan(message.size()));
        const Ticks begin = ticks();
        std::memcpy(loan.bytes().data(), message.data(), message.size());
        const Ticks span = ticks() - begin;
        require(loan.commit());
        await_reader();
        return span;
    }

    // The bytes are written between the two timed halves, as an application would compute them.
    Ticks send_loaned() {
        const std::span<const std::byte> message = payload_.numbered(sent_);
        const Ticks begin = ticks();
        BroadcastLoan loan = require(writer_->loan(message.size()));
        const Ticks loaned = ticks() - begin;
        std::memcpy(loan.bytes().data(), message.data(), message.size());
        const Ticks filled = ticks();
        require(loan.commit());
        const Ticks span = loaned + (ticks() - filled);
        await_reader();
        return span;
    }

    Ticks copy_privately() {
        const std::span<const std::byte> message = payload_.numbered(sent_);
        const Ticks begin = ticks();
        std::memcpy(private_copy_.data(), message.data(), message.size());
        // Keeps the compiler from removing the copy, which is never read.
        asm volatile("" : : "r"(private_copy_.data()) : "memory");
        return ticks() - begin;
    }

    void print(const char* who, const Samples& samples) const {
        Record("copy").text("who", who).count("size", payload_.size()).latency(samples).print();
    }

    Payload payload_;
    std::vector<std::byte> private_copy_;
    Shared<Progress> progress_;
    std::optional<Child> reader_;
    std::optional<BroadcastWriter> writer_;
    std::uint64_t sent_ = 0;
    Samples copied_, plain_, loaned_, private_;
};

}  // namespace
}  // namespace penstock::bench

int main(int argc, char** argv) {
    using namespace penstock::bench;
    const auto arguments = parse_arguments(argc, argv);
    return run_guarded(200, [&] {
        fail_when_a_child_fails();
        for (const std::size_t size : kSizes) {
            if (arguments.wants_size(size)) {
                Course(size).run((arguments.quick ? 15 : 60) * (size < (4U << 20U) ? 4 : 1));
            }
        }
    });
}
