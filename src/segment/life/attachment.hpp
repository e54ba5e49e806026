// The participants of this process, whatever part of the program holds them. With it all of them
// can leave in good order when the process ends, even if a thread that never runs again refers to
// one; and it can tell that a wait can be ended by this process only.
#pragma once

#include <string>

#include "segment/life/segment.hpp"

namespace penstock::detail {

// One participant of this process, from enter() to withdraw(). The base of the concepts' cores.
class Attachment {
public:
    Attachment() noexcept = default;
    Attachment(const Attachment&) = delete;
    Attachment& operator=(const Attachment&) = delete;

    // Ends the stream that this participant feeds: consumers get what is queued, then Closed. Any
    // thread. No effect for a participant that feeds none.
    virtual void end_stream() noexcept {}
    [[nodiscard]] virtual bool is_stream_over() const noexcept { return false; }
    // Whether this participant may produce what others wait for.
    [[nodiscard]] virtual bool feeds() const noexcept { return true; }
    // Leaves the segment at once: what the participant still holds is given back as after a death,
    // and objects that refer to it change nothing any more. Memory stays mapped for readers that
    // are still at work. No thread may be inside a call. Repeatable.
    virtual void depart() noexcept = 0;

protected:
    ~Attachment() = default;
    // Lists this participant: the process has this slot of that segment, which must outlive
    // withdraw(). Throws std::bad_alloc.
    void enter(const Segment& segment, unsigned slot);
    // Removes it from the list. After this no depart() is running, and none will be called.
    // Repeatable.
    void withdraw() noexcept;

private:
    friend struct AttachmentTable;
    const Segment* place_ = nullptr;
    unsigned place_slot_ = 0;
};

// What a thread waits for in a segment.
enum class Awaited : std::uint8_t {
    Message,  // or an object: comes from a participant that feeds the stream
    Room,     // comes from a participant that takes
};

// Whether only this process could end such a wait: no other process is attached that could, and a
// participant of this process could. False for a stream that has ended (the wait ends by itself),
// and if this process is not attached to `instance`.
bool is_awaited_in_vain(const std::string& instance, Awaited what);

// Ends the streams of that segment that this process feeds.
void end_streams(const std::string& instance) noexcept;

// Makes every participant of this process leave. At the end of the process, when no other thread of
// it is inside a call of the library.
void depart_all() noexcept;

}  // namespace penstock::detail
