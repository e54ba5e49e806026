// populate(): maps all of a store's memory that exists, and no more, into this process's page
// tables.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "os/pages.hpp"
#include "tests/support/tier.hpp"
#include "tests/unit/store/store_fixture.hpp"
#include "tests/unit/support/refused_calls.hpp"

namespace penstock {
namespace {

using namespace test;
using namespace std::chrono_literals;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;
constexpr std::size_t kObject = 1'000'000;

StoreOptions store_of(std::uint64_t capacity) {
    StoreOptions options = small_store();
    options.capacity = capacity;
    return options;
}

// KiB in page tables of this process's mappings of the segment, either writable or read-only. Only
// mappings of attach() count: the creator's file had no name yet when it was mapped.
std::uint64_t resident_kib(const std::string& name, bool is_writable) {
    std::ifstream file("/proc/self/smaps");
    std::uint64_t sum = 0;
    bool is_meant = false;
    std::string line;
    while (std::getline(file, line)) {
        if (const std::size_t at = line.find("penstock." + name); at != std::string::npos) {
            is_meant = (line.find(" rw-s ") != std::string::npos) == is_writable;
        } else if (line.find('-') < line.find(' ')) {
            is_meant = false;  // the head of another mapping
        } else if (is_meant && line.starts_with("Rss:")) {
            sum += std::stoull(line.substr(4));
        }
    }
    return sum;
}

std::uint64_t minor_faults() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return static_cast<std::uint64_t>(usage.ru_minflt);
}

// Skips where the kernel lacks the advice (before Linux 5.14).
#define PENSTOCK_NEEDS_POPULATE()                                                  \
    do {                                                                           \
        void* const one = ::mmap(nullptr, os::page_size(), PROT_READ | PROT_WRITE, \
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);              \
        const bool can = ::madvise(one, os::page_size(), 23) == 0;                 \
        ::munmap(one, os::page_size());                                            \
        if (!can) GTEST_SKIP() << "no MADV_POPULATE_WRITE here";                   \
    } while (false)

void fill(Store& store, unsigned objects) {
    for (unsigned i = 0; i < objects; ++i) put(store, i, kObject).or_throw();
}

class PopulateTest : public StoreTest {
protected:
    void SetUp() override { PENSTOCK_NEEDS_POPULATE(); }

    // A new process that has attached: its page tables hold nothing of the payload.
    template <typename Body>
    int in_another_process(Body&& body) const {
        Child child([&] {
            Store own = Store::attach(name_);
            body(own);
        });
        return child.wait();
    }
};

TEST_F(PopulateTest, ExistingMemoryIsMappedForWritingAndReading) {
    Store store = Store::create(name_, store_of(32 * kMiB));
    fill(store, 16);
    EXPECT_EQ(in_another_process([&](Store& own) {
                  const std::uint64_t least = 16 * kObject / 1024;
                  require(resident_kib(name_, true) < least / 4);
                  require(resident_kib(name_, false) < least / 4);
                  require(own.populate().is_ok());
                  require(resident_kib(name_, true) >= least);
                  require(resident_kib(name_, false) >= least);
              }),
              0);
}

TEST_F(PopulateTest, ReadingAndOverwritingCauseNoFaults) {
    if (trust::kIsSanitized) GTEST_SKIP() << "sanitizers fault shadow memory in";
    StoreOptions options = store_of(32 * kMiB);
    options.memory.populate = true;  // also where later objects will lie
    Store store = Store::create(name_, options);
    fill(store, 16);
    EXPECT_EQ(in_another_process([&](Store& own) {
                  require(own.populate().is_ok());
                  std::vector<std::byte> copy(kObject);
                  std::memset(copy.data(), 1, copy.size());
                  const std::uint64_t before = minor_faults();
                  for (unsigned i = 0; i < 16; ++i) {
                      StoreObject object = own.get(key_of(i)).or_throw();
                      std::memcpy(copy.data(), object.bytes().data(), copy.size());
                      object.release();
                      own.remove(key_of(i)).or_throw();
                      own.put(key_of(i), copy).or_throw();
                  }
                  // 16 MB are 3900 pages to write, and 240 of the 64 KiB that one read fault maps.
                  require(minor_faults() - before < 100);
              }),
              0);
}

TEST_F(PopulateTest, TakesNoMemoryThatTheStoreDidNotHave) {
    Store store = Store::create(name_, store_of(256 * kMiB));
    fill(store, 3);
    const std::uint64_t before = store.stats().reserved_bytes;
    ASSERT_LT(before, 16 * kMiB);
    EXPECT_TRUE(succeeds(store.populate()));
    EXPECT_EQ(store.stats().reserved_bytes, before);
    store.remove(key_of(1)).or_throw();
    store.trim();
    const std::uint64_t trimmed = store.stats().reserved_bytes;
    EXPECT_TRUE(succeeds(store.populate()));
    EXPECT_EQ(store.stats().reserved_bytes, trimmed) << "holes stay holes";
    EXPECT_TRUE(has(store, 0, kObject));
    EXPECT_TRUE(has(store, 2, kObject));
}

TEST_F(PopulateTest, MapsAllOfAStoreReservedAtCreation) {
    StoreOptions options = store_of(16 * kMiB);
    options.memory.populate = true;
    Store store = Store::create(name_, options);
    EXPECT_EQ(in_another_process([&](Store& own) {
                  require(own.populate().is_ok());
                  require(resident_kib(name_, true) >= 16 * kMiB / 1024);
              }),
              0);
}

TEST_F(PopulateTest, MapsObjectsOfAnotherProcess) {
    const Store creator = Store::create(name_, store_of(32 * kMiB));
    Store store = Store::attach(name_);
    EXPECT_EQ(in_another_process([&](Store& own) { fill(own, 16); }), 0);
    ASSERT_LT(resident_kib(name_, true), 4096U);
    EXPECT_TRUE(succeeds(store.populate()));
    EXPECT_GE(resident_kib(name_, true), 16 * kObject / 1024);
}

TEST_F(PopulateTest, EndsWhenItsWaitDoes) {
    Store store = Store::create(name_, store_of(128 * kMiB));
    EXPECT_TRUE(fails(store.populate(Deadline::now()), ErrorCode::Timeout)) << "after one step";
    Cancel cancel;
    cancel.cancel();
    Wait cancelled;
    cancelled.cancel = &cancel;
    EXPECT_TRUE(fails(store.populate(cancelled), ErrorCode::Cancelled, {"was cancelled"}));
    unsigned asked = 0;
    Wait interrupted;
    interrupted.context = &asked;
    interrupted.interrupted = [](void* context) { return ++*static_cast<unsigned*>(context) == 3; };
    EXPECT_TRUE(fails(store.populate(interrupted), ErrorCode::Cancelled));
    EXPECT_EQ(asked, 3U) << "before each step";
    EXPECT_TRUE(succeeds(store.populate())) << "and can be had after all";
}

TEST_F(PopulateTest, IsRefusedOnAForeignStore) {
    Store store = Store::create(name_, small_store());
    Child child([&] { require(store.populate().code() == ErrorCode::WrongProcess); });
    EXPECT_EQ(child.wait(), 0);
    Child lost([&] {
        Store own = Store::attach(name_);
        ::close_range(3, ~0U, 0);
        require(own.populate().code() == ErrorCode::WrongProcess);
    });
    EXPECT_EQ(lost.wait(), 0);
    Store left = Store::attach(name_);
    left.request_close();
    EXPECT_TRUE(fails(left.populate(), ErrorCode::Closed));
    left.close();
    EXPECT_TRUE(fails(left.populate(), ErrorCode::Closed));
}

// The kernel lacks the advice, or has no memory.
TEST_F(PopulateTest, ReportsTheKernelsError) {
    Store store = Store::create(name_, small_store());
    put(store, 1).or_throw();
    struct Row {
        int error;
        ErrorCode code;
    };
    for (const Row& row : {Row{EINVAL, ErrorCode::InvalidArgument}, Row{ENOMEM, ErrorCode::NoSpace},
                           Row{EFAULT, ErrorCode::NoSpace}}) {
        Child child([&] {
            Store own = Store::attach(name_);
            if (!refuse_calls({{SYS_madvise, row.error, 2, 0, 0}})) ::_exit(kCannotRefuse);
            const Status status = own.populate();
            require(status.code() == row.code);
            require(status.message().find("can't map all memory of '" + name_) !=
                    std::string::npos);
        });
        const int end = child.wait();
        if (end == kCannotRefuse) GTEST_SKIP() << "no seccomp here";
        EXPECT_EQ(end, 0) << std::strerror(row.error);
    }
}

}  // namespace
}  // namespace penstock
