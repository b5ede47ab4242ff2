<?php

declare(strict_types=1);

namespace Mega;

/** What a client asks of mega; the value is the word on the wire. */
enum Command: string
{
    /** Answered when WeChat has answered. */
    case Send = 'send';

    /** Answered when the message is safely queued. */
    case Push = 'push';

    /** Answered when the template was read again. */
    case Tset = 'tset';
}
