// Errors: one code per kind of failure, and a sentence that says what to do about it.
// Set-up (create, attach) throws Error; hot paths are noexcept and return Status or Result<T>.
#pragma once

#include <cassert>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace penstock {

enum class ErrorCode : std::uint8_t {
    Ok = 0,
    Timeout,           // the deadline passed; nothing was sent or consumed
    Closed,            // the stream has ended, or this handle is closed: see ClosedBy
    PeerDied,          // the kernel says a peer is dead; the sentence names it: see Death
    NotFound,          // no segment of that name
    AlreadyExists,     // a living process holds that name
    NoSpace,           // the memory could not be reserved (file system full, arena full)
    TooLarge,          // can never fit, however long the call waits
    Incompatible,      // another version, kind, geometry, or not a Penstock segment at all
    Corrupt,           // the bytes contradict themselves
    Cancelled,         // a Cancel token, a signal, or close() from another thread
    InvalidName,       // names are [A-Za-z0-9._-]{1,200}
    InvalidArgument,   // a size, rank or option out of range
    PermissionDenied,  // the file belongs to another user
    Busy,              // a role is taken, or a loan is still open
    WrongProcess,      // the handle is used in a forked child, or lost its descriptor: attach anew
    System,            // the operating system refused something unexpected
    Expired,           // a reservation or reference that is no longer valid
};

// Reason of a Closed. Self: this handle was closed by this process, or moved from; every call that
// can fail says so, every other does nothing, the name stays known, and what was received before
// stays valid. Peer: the stream has ended.
enum class ClosedBy : std::uint8_t { Nobody, Peer, Self };

// The process that a PeerDied is about, and how it ended. Fields that are not known are empty; the
// sentence says why.
struct Death {
    std::optional<std::uint32_t> pid = std::nullopt;  // in its own PID namespace
    std::optional<int> exit_code = std::nullopt;      // of one that exited without closing
    std::optional<int> signal = std::nullopt;         // that killed the process
};

// "Timeout", "PeerDied"...: the name of the code, also the name of the Python class.
std::string_view to_string(ErrorCode code) noexcept;

// Thrown by set-up. what() is a whole sentence: what was asked, what is in the way, what to do.
class Error : public std::exception {
public:
    Error(ErrorCode code, std::string sentence, int peer = -1, ClosedBy closed_by = ClosedBy::Peer,
          const Death& death = {})
        : code_(code), closed_by_(code == ErrorCode::Closed ? closed_by : ClosedBy::Nobody),
          peer_(peer), death_(death), sentence_(std::move(sentence)) {}

    [[nodiscard]] ErrorCode code() const noexcept { return code_; }
    [[nodiscard]] int peer() const noexcept { return peer_; }  // a rank, or -1
    [[nodiscard]] ClosedBy closed_by() const noexcept { return closed_by_; }
    // The first, if a PeerDied is about several deaths.
    [[nodiscard]] const Death& death() const noexcept { return death_; }
    [[nodiscard]] const char* what() const noexcept override { return sentence_.c_str(); }

private:
    ErrorCode code_;
    ClosedBy closed_by_;
    int peer_;
    Death death_;
    std::string sentence_;
};

// The outcome of a call on a hot path. Success costs one null pointer; a failure carries a
// sentence.
class [[nodiscard]] Status {
public:
    Status() noexcept = default;
    // `peer`: the rank that a PeerDied or Busy is about, or -1.
    Status(ErrorCode code, std::string sentence, int peer = -1, const Death& death = {}) noexcept;
    // Without a sentence, for outcomes that are no fault, such as a miss.
    explicit Status(ErrorCode code) noexcept : code_(code) {}
    // Copies serve to pass a failure on. Without memory for it the copy has no sentence.
    Status(const Status& other) noexcept;
    Status(Status&& other) noexcept = default;
    Status& operator=(const Status& other) noexcept { return *this = Status(other); }
    Status& operator=(Status&& other) noexcept = default;
    ~Status() = default;

    // Closed by Self: for a handle that was closed by this process, or moved from.
    static Status closed_here(std::string sentence) noexcept;

    static Status ok() noexcept { return {}; }
    [[nodiscard]] bool is_ok() const noexcept { return code_ == ErrorCode::Ok; }
    explicit operator bool() const noexcept { return is_ok(); }
    [[nodiscard]] ErrorCode code() const noexcept { return code_; }
    // The sentence, or the bare name of the code when there was no memory left to build one.
    [[nodiscard]] std::string_view message() const noexcept;
    [[nodiscard]] int peer() const noexcept { return peer_; }
    // As in Error. Empty where memory for the sentence was lacking.
    [[nodiscard]] Death death() const noexcept { return details_ ? details_->death : Death{}; }
    [[nodiscard]] ClosedBy closed_by() const noexcept {
        if (code_ != ErrorCode::Closed) return ClosedBy::Nobody;
        return is_own_ ? ClosedBy::Self : ClosedBy::Peer;
    }
    // Throws Error unless the status is ok.
    void or_throw() const;

private:
    ErrorCode code_ = ErrorCode::Ok;
    bool is_own_ = false;  // of Closed: this handle
    int peer_ = -1;
    struct Details {
        std::string sentence;
        Death death;
    };
    std::unique_ptr<const Details> details_;
};

// A value, or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
public:
    Result(T value) noexcept : value_(std::move(value)) {}  // NOLINT(*-explicit-*)
    template <typename... Args>
    explicit Result(std::in_place_t in_place, Args&&... args) noexcept
        : value_(in_place, std::forward<Args>(args)...) {}
    Result(Status failure) noexcept : failure_(std::move(failure)) {  // NOLINT(*-explicit-*)
        assert(!failure_.is_ok());
    }

    [[nodiscard]] bool is_ok() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return is_ok(); }
    [[nodiscard]] ErrorCode code() const noexcept { return failure_.code(); }
    [[nodiscard]] const Status& status() const noexcept { return failure_; }

    T& operator*() & noexcept { return *value_; }
    const T& operator*() const& noexcept { return *value_; }
    T&& operator*() && noexcept { return std::move(*value_); }
    T* operator->() noexcept { return &*value_; }
    const T* operator->() const noexcept { return &*value_; }

    // The value, or throws Error.
    T or_throw() && {
        failure_.or_throw();
        return std::move(*value_);
    }

private:
    std::optional<T> value_;
    Status failure_;
};

}  // namespace penstock
