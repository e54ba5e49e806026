// Memory taken at creation: this may take long, so create() of every concept can be cancelled and
// then leaves nothing; kernels without the advice for it are served in another way.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/segment.hpp"
#include "penstock/store.hpp"
#include "penstock/trajectories.hpp"
#include "tests/support/tier.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/refused_calls.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock {
namespace {

using test::Child;
using test::fails;
using test::refuses;
using test::require;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;
constexpr std::uint64_t kCapacity = 48 * kMiB;  // several pieces

// A way to create a segment that takes all its memory at once.
struct Concept {
    const char* name;
    std::function<std::shared_ptr<void>(const std::string& name, const MemoryOptions& memory)>
        create;  // returns the handle
};

const std::vector<Concept>& concepts() {
    static const std::vector<Concept> all = {
        {"Broadcast",
         [](const std::string& name, const MemoryOptions& memory) {
             BroadcastOptions options;
             options.capacity = kCapacity;
             options.memory = memory;
             return std::make_shared<BroadcastWriter>(BroadcastWriter::create(name, options));
         }},
        {"Queue",
         [](const std::string& name, const MemoryOptions& memory) {
             QueueOptions options;
             options.capacity = kCapacity;
             options.memory = memory;
             return std::make_shared<Queue>(Queue::create(name, options));
         }},
        {"Store",
         [](const std::string& name, const MemoryOptions& memory) {
             StoreOptions options;
             options.capacity = kCapacity;
             options.memory = memory;
             return std::make_shared<Store>(Store::create(name, options));
         }},
        {"trajectories",
         [](const std::string& name, const MemoryOptions& memory) {
             TrajectoryOptions options;
             options.capacity = kCapacity;
             options.memory = memory;
             return std::make_shared<TrajectoryReader>(TrajectoryReader::create(name, options, 4));
         }},
    };
    return all;
}

// Interrupts a wait at the `at`-th call of `interrupted`.
class Interruption {
public:
    explicit Interruption(unsigned at) noexcept : at_(at) {}
    [[nodiscard]] Wait wait() noexcept {
        Wait wait;
        wait.context = this;
        wait.interrupted = [](void* self) {
            auto* const own = static_cast<Interruption*>(self);
            return ++own->asked_ >= own->at_;
        };
        return wait;
    }
    [[nodiscard]] unsigned asked() const noexcept { return asked_; }

private:
    unsigned at_;
    unsigned asked_ = 0;
};

// KiB of shared memory in this process's page tables.
std::uint64_t resident_shared_kib() {
    std::ifstream file("/proc/self/status");
    std::string word;
    while (file >> word) {
        if (word == "RssShmem:") break;
    }
    std::uint64_t kib = 0;
    file >> kib;
    return kib;
}

class MemoryOptionsTest : public test::CleanTest {
protected:
    const std::string name_ = new_name();
};

TEST_F(MemoryOptionsTest, AllMemoryIsTakenAtCreation) {
    for (const Concept& one : concepts()) {
        SCOPED_TRACE(one.name);
        const std::shared_ptr<void> handle = one.create(name_, {.populate = true});
        EXPECT_GE(inspect_segment(name_).reserved_bytes, kCapacity);
    }
}

// A queue that is not reserved gives its memory back after two seconds.
TEST_F(MemoryOptionsTest, AQueueKeepsMemoryReservedAtCreation) {
    const std::vector<std::byte> message(8 * kMiB);
    for (const bool is_populated : {false, true}) {
        QueueOptions options;
        options.capacity = 16 * kMiB;
        options.memory.populate = is_populated;
        Queue queue = Queue::create(name_, options);
        queue.put(message).or_throw();
        const std::uint64_t before = queue.stats().reserved_bytes;
        EXPECT_EQ(before >= options.capacity, is_populated);
        Queue other = Queue::attach(name_);
        other.take().or_throw().ack();
        EXPECT_TRUE(fails(other.take(std::chrono::seconds(3)).status(), ErrorCode::Timeout));
        EXPECT_EQ(queue.stats().reserved_bytes == before, is_populated);
    }
}

TEST_F(MemoryOptionsTest, CreationEndsWhenItsWaitDoes) {
    Cancel cancel;
    cancel.cancel();
    MemoryOptions cancelled{.populate = true};
    cancelled.wait.cancel = &cancel;
    MemoryOptions late{.populate = true};
    late.wait = Deadline::now();
    for (const Concept& one : concepts()) {
        SCOPED_TRACE(one.name);
        EXPECT_TRUE(refuses(ErrorCode::Cancelled, [&] { one.create(name_, cancelled); },
                            {"creating '" + name_, "cancelled"}));
        EXPECT_TRUE(refuses(ErrorCode::Timeout, [&] { one.create(name_, late); },
                            {"creating '" + name_, "took too long"}));
        EXPECT_FALSE(exists(name_));
        one.create(name_, {.populate = true});  // and a later create() succeeds
        EXPECT_FALSE(exists(name_));
    }
}

TEST_F(MemoryOptionsTest, CreationCanBeInterruptedBetweenAllItsPieces) {
    for (const Concept& one : concepts()) {
        SCOPED_TRACE(one.name);
        Interruption none(~0U);
        one.create(name_, {.populate = true, .wait = none.wait()});
        // Called for every 16 MiB that are reserved and every 32 MiB that are mapped.
        EXPECT_GE(none.asked(), kCapacity / (16 * kMiB) + kCapacity / (32 * kMiB));
        for (unsigned at = 1; at <= none.asked(); ++at) {
            Interruption soon(at);
            EXPECT_TRUE(refuses(ErrorCode::Cancelled, [&] {
                one.create(name_, {.populate = true, .wait = soon.wait()});
            })) << at;
            EXPECT_EQ(soon.asked(), at) << "and does not go on";
            EXPECT_FALSE(exists(name_));
        }
    }
}

TEST_F(MemoryOptionsTest, LockingMemoryCanBeInterruptedToo) {
    if (trust::kIsSanitized) GTEST_SKIP() << "sanitizers turn mlock into nothing";
    for (const Concept& one : concepts()) {
        SCOPED_TRACE(one.name);
        Interruption none(~0U);
        try {
            one.create(name_, {.lock_memory = true, .wait = none.wait()});
        } catch (const Error& error) {
            GTEST_SKIP() << error.what();
        }
        Interruption last(none.asked());
        EXPECT_TRUE(refuses(ErrorCode::Cancelled, [&] {
            one.create(name_, {.lock_memory = true, .wait = last.wait()});
        }));
        EXPECT_FALSE(exists(name_));
    }
}

// Kernels before Linux 5.14.
TEST_F(MemoryOptionsTest, PagesAreTouchedIfTheKernelLacksTheAdvice) {
    for (const Concept& one : concepts()) {
        Child child([&] {
            constexpr std::uint32_t kPopulateRead = 22;
            constexpr std::uint32_t kPopulateWrite = 23;
            if (!test::refuse_calls({{SYS_madvise, EINVAL, 2, ~0U, kPopulateRead},
                                     {SYS_madvise, EINVAL, 2, ~0U, kPopulateWrite}})) {
                ::_exit(test::kCannotRefuse);
            }
            // Called before each piece: at the last call, all pieces but one are mapped.
            struct Most {
                std::uint64_t before = resident_shared_kib();
                std::uint64_t most = 0;
            } seen;
            Wait wait;
            wait.context = &seen;
            wait.interrupted = [](void* context) {
                auto* const own = static_cast<Most*>(context);
                own->most = std::max(own->most, resident_shared_kib() - own->before);
                return false;
            };
            one.create(name_, {.populate = true, .wait = wait});
            require(seen.most >= (kCapacity - 32 * kMiB) / 1024);
        });
        const int end = child.wait();
        if (end == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
        EXPECT_EQ(end, 0) << one.name;
    }
}

}  // namespace
}  // namespace penstock
