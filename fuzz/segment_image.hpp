// What the fuzzers of segments have in common: a place for files, images of real segments to start
// from, and the calls that anybody may make on a file that he found.
#pragma once

#include <fcntl.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "penstock/broadcast.hpp"
#include "segment/layout.hpp"

namespace penstock::fuzzing {

using Image = std::vector<std::uint8_t>;

inline constexpr const char* kPlaygroundPrefix = "penstock-fuzz-";

// Directories of fuzzers that were killed.
inline void sweep_playgrounds() {
    std::error_code ignored;
    for (const auto& entry :
         std::filesystem::directory_iterator(std::filesystem::temp_directory_path(), ignored)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with(kPlaygroundPrefix)) continue;
        const int owner = std::atoi(name.c_str() + std::strlen(kPlaygroundPrefix));
        if (owner > 0 && ::kill(owner, 0) != 0 && errno == ESRCH) {
            std::filesystem::remove_all(entry.path(), ignored);
        }
    }
}

// A directory of this process; removed at exit.
inline const std::filesystem::path& playground() {
    static const auto* directory = [] {  // never destroyed: used at exit
        sweep_playgrounds();
        const auto* own =
            new std::filesystem::path(std::filesystem::temp_directory_path() /
                                      (kPlaygroundPrefix + std::to_string(::getpid())));
        std::filesystem::create_directories(*own);
        std::atexit([] {
            std::error_code ignored;
            std::filesystem::remove_all(playground(), ignored);
        });
        return own;
    }();
    return *directory;
}

inline std::string path_of(const char* name) {
    return (playground() / name).string();
}

// Calls that may refuse, and must do nothing worse.
template <typename Call>
void may_refuse(Call&& call) {
    try {
        call();
    } catch (const Error&) {  // the only thing that may come out
    }
}

// Reads some of every page, so that a range that is not there is noticed.
inline void touch(std::span<const std::byte> bytes) {
    volatile unsigned sum = 0;
    for (std::size_t at = 0; at < bytes.size(); at += 1024) {
        sum = sum + std::to_integer<unsigned>(bytes[at]);
    }
    if (!bytes.empty()) sum = sum + std::to_integer<unsigned>(bytes.back());
}

// Everything a reader can do, for a while.
inline void exercise(BroadcastReader& reader) {
    std::vector<Message> held;
    for (int i = 0; i < 40; ++i) {
        static_cast<void>(reader.next_size(Deadline::now()).is_ok());
        Result<Message> message = reader.recv(Deadline::now());
        if (!message) break;
        touch(message->bytes());
        if (i % 3 == 0) message->keep();
        if (i % 2 == 0) held.push_back(std::move(*message));
    }
    std::byte small[100];
    static_cast<void>(reader.recv_into(small, Deadline::now()).is_ok());
    may_refuse([&] { static_cast<void>(reader.stats()); });
    for (const Message& message : held) touch(message.bytes());
}

// Everything that somebody who finds the file can do with it.
inline void exercise_file(const std::string& name) {
    may_refuse([&] { static_cast<void>(inspect_segment(name)); });
    may_refuse([&] {
        for (const ReaderState& reader : inspect_broadcast(name).readers) {
            static_cast<void>(reader.describe());
        }
    });
    for (const unsigned rank : {0U, 1U}) {
        may_refuse([&] {
            BroadcastReader reader = BroadcastReader::attach(name, rank);
            exercise(reader);
        });
    }
    may_refuse([&] {
        BroadcastWriter writer =
            BroadcastWriter::create(name, {.readers = 1, .capacity = 4096, .large = 65536});
        std::byte bytes[100] = {};
        static_cast<void>(writer.send(bytes, Deadline::now()).is_ok());
    });
    may_refuse([&] { static_cast<void>(remove_if_abandoned(name)); });
}

// The checksum of a header that somebody has changed, made right again (FNV-1a, as in header.cpp).
inline void mend_checksum(Image& image) {
    if (image.size() < sizeof(layout::SegmentHeader)) return;
    constexpr std::size_t kEnd = offsetof(layout::SegmentHeader, checksum);
    std::uint64_t hash = 0xcbf29ce484222325;
    for (std::size_t i = 0; i < kEnd; ++i) hash = (hash ^ image[i]) * 0x100000001b3;
    std::memcpy(image.data() + kEnd, &hash, sizeof hash);
}

// Overwrites some words or bytes within [from, from + size) of the memory as the input says.
inline void damage(FuzzedDataProvider& input, std::uint8_t* memory, std::size_t from,
                   std::size_t size) {
    constexpr std::uint64_t kTelling[] = {0,
                                          1,
                                          2,
                                          7,
                                          8,
                                          4096,
                                          65536,
                                          0x7FFFFFFF,
                                          0xFFFFFFFF,
                                          std::uint64_t{1} << 40U,
                                          ~std::uint64_t{0} - 7,
                                          ~std::uint64_t{0}};
    const std::size_t at = input.ConsumeIntegralInRange<std::size_t>(0, size - 1);
    if (input.ConsumeBool()) {
        const auto bytes =
            input.ConsumeBytes<std::uint8_t>(input.ConsumeIntegralInRange<std::size_t>(1, 64));
        if (bytes.empty()) return;
        std::memcpy(memory + from + at, bytes.data(), std::min(bytes.size(), size - at));
        return;
    }
    const std::size_t word = at / 8 * 8;
    if (word + 8 > size) return;
    std::uint64_t value = 0;
    std::memcpy(&value, memory + from + word, 8);
    switch (input.ConsumeIntegralInRange<int>(0, 3)) {
        case 0:
            value = input.PickValueInArray(kTelling);
            break;
        case 1:
            value += input.ConsumeIntegralInRange<std::uint64_t>(0, 64) * 8;
            break;
        case 2:
            value ^= std::uint64_t{1} << input.ConsumeIntegralInRange<unsigned>(0, 63);
            break;
        default:
            value = input.ConsumeIntegral<std::uint64_t>();
            break;
    }
    std::memcpy(memory + from + word, &value, 8);
}

}  // namespace penstock::fuzzing
