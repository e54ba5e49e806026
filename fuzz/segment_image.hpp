// Files of real segments, taken at several moments of their lives. A fuzzer writes one to disk
// again, damaged, and uses it.
#pragma once

#include <fcntl.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fuzz/damage.hpp"
#include "penstock/broadcast.hpp"
#include "penstock/store.hpp"
#include "penstock/trajectories.hpp"

namespace penstock::fuzzing {

// The written parts of a file; the rest reads as zeros.
struct Image {
    std::vector<std::uint8_t> front;  // header, slots and control
    std::size_t payload_offset = 0;
    std::vector<std::uint8_t> payload;  // the interpreted part

    [[nodiscard]] layout::SegmentHeader header() const {
        layout::SegmentHeader header{};
        std::memcpy(&header, front.data(), std::min(sizeof header, front.size()));
        return header;
    }
};

inline std::vector<std::uint8_t> read_part(int file, std::size_t offset, std::size_t size) {
    std::vector<std::uint8_t> bytes(size);
    const ssize_t got = ::pread(file, bytes.data(), size, static_cast<off_t>(offset));
    if (got < 0) std::abort();
    bytes.resize(static_cast<std::size_t>(got));
    return bytes;
}

inline Image image_of(const std::string& path) {
    constexpr std::size_t kPayload = std::size_t{16} << 10U;
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) std::abort();
    layout::SegmentHeader header{};
    if (::pread(file, &header, sizeof header, 0) != sizeof header) std::abort();
    Image image;
    image.front = read_part(file, 0, header.control_offset + header.control_size);
    image.payload_offset = header.payload_offset;
    image.payload = read_part(file, header.payload_offset, kPayload);
    ::close(file);
    return image;
}

inline void write_part(int file, std::size_t offset, const std::vector<std::uint8_t>& bytes) {
    if (::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset)) < 0) std::abort();
}

// Writes a file of that size under a free name.
inline void write_file(const std::string& path, const Image& image, std::size_t size) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) std::abort();
    write_part(file, 0, image.front);
    if (image.payload_offset < size) write_part(file, image.payload_offset, image.payload);
    if (::ftruncate(file, static_cast<off_t>(size)) != 0) std::abort();
    ::close(file);
}

// Mostly, the checksum is corrected after damage to the header.
inline void damage(FuzzedDataProvider& input, Image& image) {
    constexpr std::size_t kHeader = sizeof(layout::SegmentHeader);
    const bool has_right_checksum = input.ConsumeIntegralInRange<int>(0, 9) > 0;
    for (int i = input.ConsumeIntegralInRange<int>(0, 12); i > 0; --i) {
        switch (input.ConsumeIntegralInRange<int>(0, 3)) {
            case 0:
                damage(input, image.front.data(), 0, kHeader);
                break;
            case 1:
                damage(input, image.payload.data(), 0, image.payload.size());
                break;
            default:
                damage(input, image.front.data(), layout::kPage,
                       image.front.size() - layout::kPage);
                break;
        }
    }
    if (has_right_checksum) mend_checksum(image.front);
}

// ---- moments: fresh, in use, full of half-done operations, and abandoned

inline std::vector<Image> broadcast_images(const std::string& path) {
    std::vector<Image> images;
    const std::string name = "file:" + path;
    const BroadcastOptions shape{.readers = 2, .capacity = 4096, .large = 131072};
    const std::vector<std::byte> message(3000);
    BroadcastWriter writer = BroadcastWriter::create(name, shape);
    images.push_back(image_of(path));
    BroadcastReader first = BroadcastReader::attach(name, 0);
    for (const std::size_t size : {0U, 10U, 100U, 1000U}) {
        writer.send(std::span(message).first(size)).or_throw();
    }
    images.push_back(image_of(path));
    BroadcastReader second = BroadcastReader::attach(name, 1);
    for (int i = 0; i < 3; ++i) first.recv().or_throw();
    for (int i = 0; i < 3; ++i) second.recv().or_throw();
    writer.send(std::span(message).first(1000)).or_throw();
    writer.send(message).or_throw();
    const BroadcastMessage kept = first.recv().or_throw();
    writer.loan(500).or_throw().commit().or_throw();
    images.push_back(image_of(path));
    writer.close();
    images.push_back(image_of(path));
    return images;
}

inline std::vector<Image> store_images(const std::string& path) {
    std::vector<Image> images;
    const std::string name = "file:" + path;
    const std::vector<std::byte> bytes(3000);
    Store store = Store::create(
        name,
        {.capacity = 65536, .objects = 4, .participants = 3, .granule = 1024, .persistent = true});
    images.push_back(image_of(path));
    for (const char* key : {"a", "b", "c"}) store.put(key, bytes).or_throw();
    images.push_back(image_of(path));
    Store other = Store::attach(name);
    const StoreObject pinned = other.get("a").or_throw();
    const StoreReservation staged = other.reserve("d", 5000).or_throw();
    store.remove("a").or_throw();
    store.retain("b").or_throw();
    images.push_back(image_of(path));
    return images;
}

inline std::vector<Image> queue_images(const std::string& path) {
    std::vector<Image> images;
    const std::string name = "file:" + path;
    const std::vector<std::byte> bytes(6000);
    Queue queue = Queue::create(name, {.capacity = 65536,
                                       .slots = 8,
                                       .inline_bytes = 64,
                                       .participants = 4,
                                       .max_deliveries = 2});
    images.push_back(image_of(path));
    for (const std::size_t size : {0U, 60U, 6000U, 10U, 5000U}) {
        queue.put(std::span(bytes).first(size)).or_throw();
    }
    images.push_back(image_of(path));
    Queue other = Queue::attach(name);
    const Delivery taken = other.take().or_throw();
    other.take().or_throw().ack();
    other.take().or_throw().nack();
    const QueueLoan loan = other.loan(4000).or_throw();
    images.push_back(image_of(path));
    queue.end();
    images.push_back(image_of(path));
    return images;
}

// One group with two sequences of three tokens.
inline void put_group(TrajectoryWriter& writer, Rollout* rollout) {
    static constexpr std::int64_t kLengths[] = {3, 3};
    static constexpr std::int32_t kTokens[] = {1, 2, 3, 4, 5, 6};
    GroupSource group;
    group.environment = writer.environment();
    group.instance_id = "g";
    group.lengths = kLengths;
    group.columns[0] = {codec::DType::Int32, kTokens};
    codec::MessageWriter message;
    write_group(group, message);
    static_cast<void>(writer.put(message, rollout, Deadline::now()).is_ok());
}

inline std::vector<Image> trajectories_images(const std::string& path) {
    std::vector<Image> images;
    const std::string name = "file:" + path;
    TrajectoryReader reader = TrajectoryReader::create(
        name, {.capacity = 65536, .slots = 8, .participants = 4, .max_staleness = 1}, 4);
    images.push_back(image_of(path));
    TrajectoryWriter writer = TrajectoryWriter::attach(name, {.name = "maths", .group_size = 2});
    TrajectoryWriter other = TrajectoryWriter::attach(name, {.name = "code", .min_share = 0.5});
    Rollout rollout = writer.begin(Deadline::now()).or_throw();
    put_group(writer, &rollout);
    const Rollout running = other.begin(Deadline::now()).or_throw();
    images.push_back(image_of(path));
    put_group(writer, nullptr);
    put_group(other, nullptr);
    const TrajectoryBatch batch = reader.next_batch({}, Deadline::now()).or_throw();
    images.push_back(image_of(path));
    return images;
}

}  // namespace penstock::fuzzing
