<?php

declare(strict_types=1);

namespace Mega;

/**
 * Why mega takes nothing in for the moment. The value is how the answer's text begins: with mega's default
 * `unavailable_code = 500` only the text tells "not now" from a failure.
 */
enum Refusal: string
{
    /** WeChat limits or refuses the account, cannot be reached, or an operator has paused sending. */
    case Suspended = 'sending suspended';

    /** The queue's limit, the disk or the memory is full. */
    case QueueFull = 'queue full';

    /** The queue's folder was moved away under the running daemon. */
    case QueueGone = "the queue's folder was moved away";

    /** The ids of queued messages are being read after a restart, or cannot be: a request with an id may come again. */
    case Ids = 'the ids of queued messages';

    case Stopping = 'stopping';

    case Draining = 'draining';

    /** A 503 whose text this version of the client does not know. */
    case Other = '';

    public static function of(Answer $answer): ?self
    {
        foreach (self::cases() as $refusal) {
            if ($refusal !== self::Other && str_starts_with($answer->message, $refusal->value)) {
                return $refusal;
            }
        }
        return $answer->code === Answer::UNAVAILABLE ? self::Other : null;
    }
}
