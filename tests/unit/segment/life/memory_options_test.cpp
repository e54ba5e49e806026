// Memory taken at creation: this may take long, so create() of every concept can be cancelled and
// then leaves nothing; kernels without the advice for it are served in another way.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/segment.hpp"
#include "penstock/store.hpp"
#include "penstock/trajectories.hpp"
#include "tests/support/tier.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/huge_pages.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/refused_calls.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock {
namespace {

using test::Child;
using test::fails;
using test::Gate;
using test::refuses;
using test::require;
using test::Shared;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;
constexpr std::uint64_t kCapacity = 48 * kMiB;  // several pieces

// A way to create a segment that takes all its memory at once.
struct Concept {
    const char* name;
    std::function<std::shared_ptr<void>(const std::string& name, const MemoryOptions& memory)>
        create;  // returns the handle
    std::function<SegmentStats(const std::string& name)> inspect;
};

SegmentStats stats_of_queue(const std::string& name) {
    return inspect_queue(name).stats;
}

const std::vector<Concept>& concepts() {
    static const std::vector<Concept> all = {
        {"Broadcast",
         [](const std::string& name, const MemoryOptions& memory) {
             BroadcastOptions options;
             options.capacity = kCapacity;
             options.memory = memory;
             return std::make_shared<BroadcastWriter>(BroadcastWriter::create(name, options));
         },
         [](const std::string& name) -> SegmentStats { return inspect_broadcast(name).stats; }},
        {"Queue",
         [](const std::string& name, const MemoryOptions& memory) {
             QueueOptions options;
             options.capacity = kCapacity;
             options.memory = memory;
             return std::make_shared<Queue>(Queue::create(name, options));
         },
         stats_of_queue},
        {"Store",
         [](const std::string& name, const MemoryOptions& memory) {
             StoreOptions options;
             options.capacity = kCapacity;
             options.memory = memory;
             return std::make_shared<Store>(Store::create(name, options));
         },
         [](const std::string& name) -> SegmentStats { return inspect_store(name).stats; }},
        {"trajectories",
         [](const std::string& name, const MemoryOptions& memory) {
             TrajectoryOptions options;
             options.capacity = kCapacity;
             options.memory = memory;
             return std::make_shared<TrajectoryReader>(TrajectoryReader::create(name, options, 4));
         },
         stats_of_queue},
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

// Makes MADV_COLLAPSE fail in this process, for good.
bool refuse_collapsing(int error) {
    constexpr std::uint32_t kCollapse = 25;
    return test::refuse_calls({{SYS_madvise, error, 2, ~0U, kCollapse}});
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

TEST_F(MemoryOptionsTest, AllMemoryIsPutIntoHugePages) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    for (const Concept& one : concepts()) {
        SCOPED_TRACE(one.name);
        const std::shared_ptr<void> handle = one.create(name_, {.huge_pages = true});
        const SegmentStats stats = one.inspect(name_);
        EXPECT_GE(stats.reserved_bytes, kCapacity);
        EXPECT_GE(stats.huge_page_bytes, kCapacity / os::huge_page_size() * os::huge_page_size());
        EXPECT_LE(stats.huge_page_bytes, stats.reserved_bytes);
    }
    for (const Concept& one : concepts()) {
        SCOPED_TRACE(one.name);
        const std::shared_ptr<void> handle = one.create(name_, {.populate = true});
        EXPECT_EQ(one.inspect(name_).huge_page_bytes, 0U) << "unless they are asked for";
    }
}

TEST_F(MemoryOptionsTest, AFirstAccessOfAnotherProcessMapsAHugePage) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    StoreOptions options;
    options.capacity = kCapacity;
    options.memory.huge_pages = true;
    const Store store = Store::create(name_, options);
    EXPECT_GE(store.stats().huge_page_bytes, kCapacity);
    Child child([&] {
        Store own = Store::attach(name_);
        require(test::mapped_huge_bytes() < kCapacity);
        require(own.populate().is_ok());
        require(test::mapped_huge_bytes() >= 2 * kCapacity);  // for writing, and for views
        require(own.stats().huge_page_bytes >= kCapacity);
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(MemoryOptionsTest, PuttingMemoryIntoHugePagesCanBeInterrupted) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    for (const Concept& one : concepts()) {
        SCOPED_TRACE(one.name);
        Interruption none(~0U);
        one.create(name_, {.huge_pages = true, .wait = none.wait()});
        EXPECT_GE(none.asked(), 2 * kCapacity / (16 * kMiB)) << "to make them, and to reserve";
        for (unsigned at = 1; at <= none.asked(); ++at) {
            Interruption soon(at);
            EXPECT_TRUE(refuses(ErrorCode::Cancelled, [&] {
                one.create(name_, {.huge_pages = true, .wait = soon.wait()});
            })) << at;
            EXPECT_EQ(soon.asked(), at) << "and does not go on";
            EXPECT_FALSE(exists(name_));
        }
    }
}

// The answers of a kernel that has none free, whose cgroup has no room, or that finds pages in use.
TEST_F(MemoryOptionsTest, MemoryIsInSmallPagesWhereHugeOnesRunOut) {
    for (const int error : {ENOMEM, EBUSY, EAGAIN}) {
        SCOPED_TRACE(std::strerror(error));
        Child child([&] {
            if (!refuse_collapsing(error)) ::_exit(test::kCannotRefuse);
            for (const Concept& one : concepts()) {
                const std::shared_ptr<void> handle = one.create(name_, {.huge_pages = true});
                const SegmentStats stats = one.inspect(name_);
                require(stats.reserved_bytes >= kCapacity);
                require(stats.huge_page_bytes == 0);
            }
        });
        const int end = child.wait();
        if (end == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
        EXPECT_EQ(end, 0);
    }
}

// Kernels before Linux 6.1, or with shmem_enabled at "deny".
TEST_F(MemoryOptionsTest, HugePagesThatTheKernelLacksAreAnError) {
    Child child([&] {
        if (!refuse_collapsing(EINVAL)) ::_exit(test::kCannotRefuse);
        for (const Concept& one : concepts()) {
            require(refuses(ErrorCode::InvalidArgument,
                            [&] { one.create(name_, {.huge_pages = true}); },
                            {"with huge_pages", "Linux 6.1"}));
            require(!exists(name_));
        }
    });
    const int end = child.wait();
    if (end == test::kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(end, 0);
}

TEST_F(MemoryOptionsTest, MemoryThatThereIsNotIsRefusedAtOnce) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    constexpr std::uint64_t kMaxRing = std::uint64_t{1} << 38U;
    std::error_code error;
    const std::uint64_t total = os::space_at("/dev/shm", error).total;
    if (total == 0 || total >= kMaxRing / 2) GTEST_SKIP() << "/dev/shm has no usual size";
    Interruption none(~0U);
    BroadcastOptions options;
    options.capacity = std::bit_ceil(total + 1);
    options.memory = {.huge_pages = true, .wait = none.wait()};
    EXPECT_TRUE(refuses(ErrorCode::NoSpace, [&] { BroadcastWriter::create(name_, options); }));
    EXPECT_EQ(none.asked(), 0U) << "before any of it is taken";
}

TEST_F(MemoryOptionsTest, PopulatingAStorePutsTheRestIntoHugePages) {
    PENSTOCK_NEEDS_HUGE_PAGES();
    const Gate made;
    const Gate end;
    const Shared<bool> is_refused;
    Child creator([&] {
        *is_refused = refuse_collapsing(ENOMEM);
        StoreOptions options;
        options.capacity = kCapacity;
        options.memory.huge_pages = true;
        Store store = Store::create(name_, options);
        const std::vector<std::byte> object(8 * kMiB, std::byte{5});
        require(store.put("key", object).is_ok());
        made.open();
        end.pass();
        const StoreObject kept = store.get("key").or_throw();
        require(std::ranges::equal(kept.bytes(), object));  // moved while it was mapped
    });
    made.pass();
    if (!*is_refused) {
        end.open();
        creator.wait();
        GTEST_SKIP() << "no seccomp here";
    }
    {
        Store store = Store::attach(name_);
        ASSERT_EQ(store.stats().huge_page_bytes, 0U);
        const std::uint64_t before = store.stats().reserved_bytes;
        EXPECT_TRUE(test::succeeds(store.populate()));
        EXPECT_GE(store.stats().huge_page_bytes, kCapacity);
        EXPECT_EQ(store.stats().reserved_bytes, before);
    }
    end.open();
    EXPECT_EQ(creator.wait(), 0);
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
