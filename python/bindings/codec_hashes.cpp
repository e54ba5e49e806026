// A table of hashes for each dict, and one sum for the message.
#include "codec_hashes.hpp"

#include <random>

#include "codec_fault.hpp"

namespace penstock::py {
namespace {

// Pairs of sampled keys: 1/256 of all pairs.
constexpr std::uint64_t kFreePairs = 1U << 13U;
constexpr std::uint64_t kPairsPerKey = 8;

constexpr std::size_t kShortKey = 16;  // bytes of a message
constexpr std::size_t kFirstPlaces = 64;

std::uint64_t mixed(std::uint64_t number) noexcept {
    number = (number ^ (number >> 30U)) * 0xBF58476D1CE4E5B9U;
    number = (number ^ (number >> 27U)) * 0x94D049BB133111EBU;
    return number ^ (number >> 31U);
}

// Different in every process, thread and message, and never 0.
std::uint64_t new_seed() noexcept {
    static const std::uint64_t process = [] {
        std::random_device device;
        return std::uint64_t{device()} << 32U | device();
    }();
    thread_local std::uint64_t messages = 0;
    const auto thread = reinterpret_cast<std::uintptr_t>(&messages);
    return mixed(process + thread + ++messages) | 1U;
}

}  // namespace

KeyHashes::KeyHashes() noexcept : random_(new_seed()), secret_(mixed(random_)) {
    choose();
}

// xorshift; 1 to 31, on the average 16.
void KeyHashes::choose() noexcept {
    random_ ^= random_ << 13U;
    random_ ^= random_ >> 7U;
    random_ ^= random_ << 17U;
    passed_over_ = 1 + static_cast<unsigned>((random_ >> 32U) % 31);
}

void KeyHashes::note(std::uint64_t same, std::uint64_t cost) {
    keys_ += cost;
    pairs_ += same * cost;
    if (pairs_ > kFreePairs + kPairsPerKey * keys_) {
        raise_corrupt("the keys of a dict have hashes that were made to be the same");
    }
}

void KeyHashes::Dict::look(nb::handle key, std::size_t bytes) {
    const Py_hash_t hash = PyObject_Hash(key.ptr());
    if (hash == -1 && PyErr_Occurred() != nullptr) {
        PyErr_Clear();  // inserting the key will raise it
        return;
    }
    all_.note(count(static_cast<std::uint64_t>(hash)), 1 + bytes / kShortKey);
}

// Returns how many sampled keys had this hash before.
std::uint64_t KeyHashes::Dict::count(std::uint64_t hash) {
    if (2 * used_ >= places_.size()) {
        grow();
    }
    Place& place = place_of(hash);
    if (place.keys == 0) {
        place.hash = hash;
        ++used_;
    }
    return place.keys++;
}

KeyHashes::Dict::Place& KeyHashes::Dict::place_of(std::uint64_t hash) {
    const std::size_t mask = places_.size() - 1;
    std::size_t at = mixed(hash ^ all_.secret_) & mask;
    while (places_[at].keys != 0 && places_[at].hash != hash) {
        at = (at + 1) & mask;
    }
    return places_[at];
}

void KeyHashes::Dict::grow() {
    std::vector<Place> before(places_.empty() ? kFirstPlaces : 4 * places_.size());
    before.swap(places_);
    for (const Place& place : before) {
        if (place.keys != 0) {
            place_of(place.hash) = place;
        }
    }
}

}  // namespace penstock::py
