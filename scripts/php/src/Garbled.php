<?php

declare(strict_types=1);

namespace Mega;

/**
 * Whoever answers is no mega, or this process cannot wait for it: another connection would end the same way.
 *
 * @internal
 */
final class Garbled extends Lost
{
}
