// Offsets of objects in the segment's file: a process without Penstock reads and writes there; only
// the caller's own objects have an offset.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/store/store_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

const std::vector<std::size_t> kSizes{0, 1, 63, 64, 65, 4096, 100'000, 300'001};

// Another process that opens the file by its path and uses pread(2) or a mapping of the whole file.
class Foreign {
public:
    explicit Foreign(std::string path) : path_(std::move(path)) {}

    // The file has that value at `offset`.
    [[nodiscard]] bool reads(std::uint64_t offset, std::uint64_t number, std::size_t size) const {
        Child child([&] {
            const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
            std::vector<std::byte> bytes(size);
            require(::pread(file, bytes.data(), size, static_cast<off_t>(offset)) ==
                    static_cast<ssize_t>(size));
            require(trust::check_numbered(bytes, number).empty());
        });
        return child.wait() == 0;
    }
    [[nodiscard]] bool writes(std::uint64_t offset, std::uint64_t number, std::size_t size) const {
        Child child([&] {
            const int file = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
            struct stat status{};
            require(::fstat(file, &status) == 0);
            const auto length = static_cast<std::size_t>(status.st_size);
            require(offset + size <= length);
            void* const all = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            require(all != MAP_FAILED);
            trust::fill_numbered({static_cast<std::byte*>(all) + offset, size}, number);
        });
        return child.wait() == 0;
    }

private:
    std::string path_;
};

TEST_F(StoreTest, AnotherProcessReadsAPinnedObjectWhereItsOffsetSays) {
    Store store = Store::create(name_, small_store());
    const Foreign other(path_of(name_));
    std::set<std::uint64_t> offsets;
    std::vector<StoreObject> held;
    for (const std::size_t size : kSizes) {
        put(store, size, size).or_throw();
        held.push_back(store.get(key_of(size)).or_throw());
        const std::uint64_t offset = held.back().offset();
        EXPECT_NE(offset, 0U);
        EXPECT_TRUE(offsets.insert(offset).second) << "each has its own";
        EXPECT_TRUE(other.reads(offset, size, size)) << size;
        EXPECT_EQ(held.back().share().offset(), offset);
    }
}

TEST_F(StoreTest, AnotherProcessWritesAReservationWhereItsOffsetSays) {
    Store store = Store::create(name_, small_store());
    Store reader = Store::attach(name_);
    const Foreign other(path_of(name_));
    for (const std::size_t size : kSizes) {
        StoreReservation room = store.reserve(key_of(size), size).or_throw();
        EXPECT_TRUE(other.writes(room.offset(), size, size)) << size;
        EXPECT_EQ(room.offset(), room.place().offset);
        const std::uint64_t offset = room.offset();
        ASSERT_TRUE(succeeds(room.commit()));
        EXPECT_TRUE(has(reader, size, size)) << size;
        EXPECT_EQ(reader.get(key_of(size))->offset(), offset) << "a commit does not move it";
    }
}

TEST_F(StoreTest, ResizingDoesNotMoveAReservation) {
    Store store = Store::create(name_, small_store(Eviction::None));
    const Foreign other(path_of(name_));
    StoreReservation room = store.reserve("kv", 50'000).or_throw();
    const std::uint64_t offset = room.offset();
    for (const std::size_t size : {20'000U, 700'000U, 10U, 64'000U}) {
        ASSERT_TRUE(succeeds(room.resize(size)));
        EXPECT_EQ(room.offset(), offset);
        EXPECT_TRUE(other.writes(offset, size, size));
        EXPECT_TRUE(is_value(room.bytes(), size, size));
    }
    std::optional<StoreObject> object;
    room.commit(object).or_throw();
    EXPECT_EQ(object->offset(), offset);
    EXPECT_TRUE(other.reads(offset, 64'000, 64'000));
}

// An offset may be passed on, so an ended pin must not show where another object may lie by now.
TEST_F(StoreTest, AnEndedPinHasNoOffset) {
    Store store = Store::create(name_, small_store());
    StoreReservation room = store.reserve("kv", 100).or_throw();
    StoreReservation moved = std::move(room);
    EXPECT_EQ(room.offset(), 0U);  // NOLINT(bugprone-use-after-move): that is the question
    EXPECT_NE(moved.offset(), 0U);
    moved.commit().or_throw();
    EXPECT_EQ(moved.offset(), 0U);
    StoreReservation aborted = store.reserve("other", 100).or_throw();
    aborted.abort();
    EXPECT_EQ(aborted.offset(), 0U);
    StoreObject object = store.get("kv").or_throw();
    StoreObject other = std::move(object);
    EXPECT_EQ(object.offset(), 0U);  // NOLINT(bugprone-use-after-move): that is the question
    EXPECT_NE(other.offset(), 0U);
    other.release();
    EXPECT_EQ(other.offset(), 0U);
}

TEST_F(StoreTest, AnOffsetKeepsTheAlignmentThatWasAskedFor) {
    Store store = Store::create(name_, small_store());
    for (const std::uint64_t alignment :
         {std::uint64_t{64}, std::uint64_t{512}, std::uint64_t{4096}}) {
        ReserveOptions options;
        options.alignment = alignment;
        const StoreReservation room = store.reserve(key_of(alignment), 100, options).or_throw();
        EXPECT_EQ(room.offset() % alignment, 0U);
    }
}

TEST_F(StoreTest, AForkedChildHasNoOffsets) {
    Store store = Store::create(name_, small_store());
    put(store, 1).or_throw();
    const StoreReservation room = store.reserve("kv", 100).or_throw();
    const StoreObject object = store.get(key_of(1)).or_throw();
    Child child([&] { require(room.offset() == 0 && object.offset() == 0); });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_NE(room.offset(), 0U);
    EXPECT_NE(object.offset(), 0U);
}

// The object may have been reaped, and its memory reused.
TEST_F(StoreTest, ALostHandleHasNoOffsets) {
    Store store = Store::create(name_, small_store());
    put(store, 1).or_throw();
    Child child([&] {
        Store lost = Store::attach(name_);
        const StoreReservation room = lost.reserve("kv", 100).or_throw();
        const StoreObject object = lost.get(key_of(1)).or_throw();
        require(room.offset() != 0 && object.offset() != 0);
        ::close_range(3, ~0U, 0);  // as daemons do
        lost.reap_dead();          // notices the loss
        require(room.offset() == 0 && object.offset() == 0);
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(StoreTest, AnObjectThatOutlivesItsHandleHasItsOffset) {
    Store store = Store::create(name_, small_store());
    Store other = Store::attach(name_);
    put(store, 1).or_throw();
    const StoreObject object = store.get(key_of(1)).or_throw();
    const std::uint64_t offset = object.offset();
    store.close();
    EXPECT_EQ(object.offset(), offset);
    EXPECT_TRUE(Foreign(path_of(name_)).reads(offset, 1, 1000)) << "pinned all the while";
    for (unsigned number = 2; number < 20; ++number) put(other, number, 900'000).or_throw();
    EXPECT_TRUE(Foreign(path_of(name_)).reads(offset, 1, 1000));
}

}  // namespace
}  // namespace penstock
